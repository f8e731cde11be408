"""Help texts, laid out as Docker's: usage, description, aliases, flags wrapped to the terminal."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.command import Command, Flag
    from sampan.cli.index import Entry

_SLOP = 5
_MINIMUM_WRAP = 24
_ZERO_DEFAULTS = ("", "0", "false")


def usage_line(program: str, path: str, usage: str) -> str:
    """``Usage:  docker ps [OPTIONS]``."""
    return f"Usage:  {program} {path} {usage}".rstrip()


def command_help(program: str, path: str, entry: Entry, command: Command, width: int) -> str:
    """The whole help of a command. ``width`` is the terminal's, in columns."""
    parts = [usage_line(program, path, command.usage), entry.short]
    if entry.aliases:
        names = ", ".join(f"{program} {name}" for name in (entry.path, *entry.aliases))
        parts.append(f"Aliases:\n  {names}")
    shown = flag_table(command.flags, width)
    if shown:
        parts.append(f"Options:\n{shown}")
    return "\n\n".join(parts) + "\n"


def flag_table(flags: tuple[Flag, ...], width: int) -> str:
    """The visible flags, sorted, descriptions wrapped at ``width`` columns."""
    rows = []
    for flag in sorted(flags, key=lambda item: item.name):
        if not flag.hidden:
            kind, text = value_name(flag)
            lead = f"  -{flag.short}, --" if flag.short else "      --"
            rows.append((f"{lead}{flag.name} {kind}".rstrip(), text + _default(flag)))
    indent = max((len(lead) for lead, _text in rows), default=0) + 3
    return "\n".join(
        lead.ljust(indent) + wrap(text, indent, width - 1) if text else lead for lead, text in rows
    )


def value_name(flag: Flag) -> tuple[str, str]:
    """The name of the flag's value and its description, a back-quoted word being the name."""
    before, quote, rest = flag.help.partition("`")
    word, closing, after = rest.partition("`")
    if quote and closing:
        return (word if not flag.kind.switch else ""), before + word + after
    return flag.kind.name, flag.help


def _default(flag: Flag) -> str:
    if flag.default in _ZERO_DEFAULTS:
        return ""
    text = f'"{flag.default}"' if flag.kind.name == "string" else flag.default
    return f" (default {text})"


def wrap(text: str, indent: int, width: int) -> str:
    """``text`` broken into lines that start at column ``indent`` and end before ``width``.

    The last line may run over by a few columns rather than leave one short word alone.
    """
    room = width - indent
    lead = ""
    if room < _MINIMUM_WRAP:
        indent = 16
        room = width - indent
        lead = "\n" + " " * indent
        if room < _MINIMUM_WRAP:
            return text.replace("\n", "\n" + " " * indent)
    room -= _SLOP
    lines = []
    rest = text
    while rest:
        line, rest = _take_line(rest, room)
        lines += line.split("\n")
    return lead + ("\n" + " " * indent).join(lines)


def _take_line(text: str, room: int) -> tuple[str, str]:
    if len(text) < room + _SLOP:
        return text, ""
    head = text[:room]
    cut = max(head.rfind(" "), head.rfind("\t"), head.rfind("\n"))
    if cut <= 0:
        return text, ""
    newline = head.rfind("\n")
    if 0 < newline < cut:
        cut = newline
    return text[:cut], text[cut + 1 :]


def group_help(program: str, path: str, short: str, entries: list[Entry]) -> str:
    """The help of a command group: its commands."""
    names = [entry.path.rpartition(" ")[2] for entry in entries]
    width = max(map(len, names), default=0)
    rows = "\n".join(
        f"  {name:{max(width, 10)}}  {entry.short}".rstrip()
        for name, entry in sorted(zip(names, entries, strict=True))
    )
    return (
        f"Usage:  {program} {path} COMMAND\n\n{short}\n\nCommands:\n{rows}\n\n"
        f"Run '{program} {path} COMMAND --help' for more information on a command.\n"
    )


def root_help(program: str, sections: list[tuple[str, list[tuple[str, str]]]], flags: str) -> str:
    """The help of the program itself: sections of (command, description)."""
    width = max(len(name) for _title, rows in sections for name, _short in rows)
    parts = [
        f"Usage:  {program} [OPTIONS] COMMAND",
        "A complete container engine: build, ship and run containers",
    ]
    for title, rows in sections:
        lines = "\n".join(f"  {name:{width}}  {short}".rstrip() for name, short in rows)
        parts.append(f"{title}:\n{lines}")
    parts.append(f"Global Options:\n{flags}")
    parts.append(f"Run '{program} COMMAND --help' for more information on a command.")
    return "\n\n".join(parts) + "\n"
