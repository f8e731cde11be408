"""Manual pages (man-pages(7), groff_man(7)) from the command table."""

from __future__ import annotations

from sampan.cli.help import value_name
from sampan.cli.index import COMMON, ENTRIES, GROUPS
from sampan.cli.main import GLOBAL_FLAGS, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.command import Command, Flag
    from sampan.cli.index import Entry

_SECTION = "1"
_EXIT_STATUS = {
    125: (
        "\\fB125\\fP the engine or this command failed; \\fB126\\fP the program cannot be "
        "executed; \\fB127\\fP it was not found; otherwise the status of the container, 128 and "
        "the number of the signal when one ended it."
    ),
    1: "\\fB0\\fP success; \\fB1\\fP failure; \\fB125\\fP wrong flags.",
}


def page_name(program: str, path: str) -> str:
    """``sampan-container-ls`` for a path."""
    return "-".join([program, *path.split()])


def pages(program: str, version: str) -> dict[str, str]:
    """Every page by file name."""
    found = {f"{program}.{_SECTION}": _root(program, version)}
    for entry in ENTRIES:
        if entry.short:
            name = page_name(program, entry.path)
            found[f"{name}.{_SECTION}"] = _command(program, version, entry, load(entry))
    for path, short in GROUPS.items():
        name = page_name(program, path)
        found[f"{name}.{_SECTION}"] = _group(program, version, path, short)
    return found


def escape(text: str) -> str:
    """Text as roff wants it: no control lines, backslashes and hyphens as they are."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    lines = [f"\\&{line}" if line[:1] in (".", "'") else line for line in escaped.split("\n")]
    return "\n.br\n".join(lines)


def _heading(name: str, version: str, short: str) -> list[str]:
    return [
        f'.TH "{name.upper()}" "{_SECTION}" "" "sampan {version}" "sampan manual"',
        ".SH NAME",
        f"{escape(name)} \\- {escape(short[:1].lower() + short[1:])}",
    ]


def _flags(flags: tuple[Flag, ...]) -> list[str]:
    lines = []
    for flag in sorted(flags, key=lambda item: item.name):
        if flag.hidden:
            continue
        kind, text = value_name(flag)
        short = f"\\fB\\-{flag.short}\\fP, " if flag.short else ""
        value = f"=\\fI{escape(kind)}\\fP" if kind else ""
        default = f" (default {flag.default})" if flag.default not in ("", "0", "false") else ""
        lines += [".TP", f"{short}\\fB\\-\\-{escape(flag.name)}\\fP{value}", escape(text + default)]
    return lines


def _command(program: str, version: str, entry: Entry, command: Command) -> str:
    name = page_name(program, entry.path)
    lines = _heading(name, version, entry.short)
    lines += [".SH SYNOPSIS", f"\\fB{program} {entry.path}\\fP {escape(command.usage)}"]
    lines += [".SH DESCRIPTION", escape(entry.short.rstrip(".") + ".")]
    if command.detail:
        lines += [".PP", escape(command.detail)]
    if entry.beyond:
        lines += [".PP", "This command is sampan's own; Docker does not have it."]
    if entry.aliases:
        names = ", ".join(f"\\fB{program} {escape(alias)}\\fP" for alias in entry.aliases)
        lines += [".PP", f"Also: {names}."]
    flags = _flags(command.flags)
    if flags:
        lines += [".SH OPTIONS", *flags]
    lines += [".SH EXIT STATUS", _EXIT_STATUS[command.fault_code]]
    lines += [".SH SEE ALSO", f"\\fB{program}\\fP(1)"]
    return "\n".join(lines) + "\n"


def _group(program: str, version: str, path: str, short: str) -> str:
    lines = _heading(page_name(program, path), version, short)
    lines += [".SH SYNOPSIS", f"\\fB{program} {path}\\fP \\fICOMMAND\\fP", ".SH COMMANDS"]
    for entry in ENTRIES:
        if entry.path.startswith(f"{path} "):
            lines += [".TP", f"\\fB{page_name(program, entry.path)}\\fP(1)", escape(entry.short)]
    return "\n".join(lines) + "\n"


def _root(program: str, version: str) -> str:
    lines = _heading(program, version, "A complete container engine")
    lines += [
        ".SH SYNOPSIS",
        f"\\fB{program}\\fP [\\fIOPTIONS\\fP] \\fICOMMAND\\fP [\\fIARG\\fP...]",
    ]
    lines += [".SH OPTIONS", *_flags(GLOBAL_FLAGS), ".SH COMMANDS"]
    common = [entry for entry in ENTRIES if set(entry.aliases or (entry.path,)) & set(COMMON)]
    for entry in [*common, *(entry for entry in ENTRIES if entry not in common)]:
        if entry.short:
            lines += [".TP", f"\\fB{page_name(program, entry.path)}\\fP(1)", escape(entry.short)]
    lines += [
        ".SH ENVIRONMENT",
        "\\fBDOCKER_HOST\\fP, \\fBDOCKER_CONTEXT\\fP, \\fBDOCKER_CONFIG\\fP, "
        "\\fBDOCKER_API_VERSION\\fP, \\fBDOCKER_CERT_PATH\\fP, \\fBDOCKER_TLS_VERIFY\\fP, "
        "\\fBDOCKER_DEFAULT_PLATFORM\\fP, \\fBDOCKER_CUSTOM_HEADERS\\fP: as in Docker's CLI.",
    ]
    return "\n".join(lines) + "\n"
