"""Shell completion: what may stand where the cursor is, and the scripts that ask for it.

The scripts are thin: they call ``sampan __complete WORDS...`` (the last word is the one being
typed) and offer the lines it prints. Names of objects come from the daemon, which is not started
for it.
"""

from __future__ import annotations

import os

from sampan.cli.index import GROUPS, lookup
from sampan.cli.main import GLOBAL_FLAGS, load
from sampan.client.document import as_table, as_tables, tables, text, texts
from sampan.errors import SampanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.command import Command, Flag
    from sampan.cli.session import Session

#: What the scripts take as "complete a file name".
FILES = ":files"


def candidates(session: Session, words: list[str]) -> list[str]:
    """Completions of the last of ``words``; :data:`FILES` alone means file names."""
    *before, current = words or [""]
    position = _skip_flags(before, GLOBAL_FLAGS)
    if position < 0:
        return _values(session, _flag(before[-1], GLOBAL_FLAGS), current)
    table = lookup()
    path, rest = _command(before[position:])
    if path not in table:
        if rest:
            return []
        if current.startswith("-"):
            return _matching(_flag_names(GLOBAL_FLAGS), current) if not path else []
        return _matching(_next_words(path), current)
    command = load(table[path])
    awaiting = rest[-1] if rest and _needs_value(rest[-1], command.flags) else ""
    if awaiting:
        return _values(session, _flag(awaiting, command.flags), current)
    if current.startswith("-"):
        name, equals, value = current.partition("=")
        if equals:
            found = _values(session, _flag(name, command.flags), value)
            return [item if item == FILES else f"{name}={item}" for item in found]
        return _matching([*_flag_names(command.flags), "--help"], current)
    return _objects(session, _kind(command, rest), current)


def _kind(command: Command, rest: list[str]) -> str:
    """What the next positional argument is; those after the first of ``run`` are files."""
    taken = [word for word in rest if not word.startswith("-")]
    if not command.interspersed and taken:
        return "file"
    return command.complete


def _skip_flags(words: list[str], flags: tuple[Flag, ...]) -> int:
    """The index of the first word that is no global flag; -1 when a value is missing."""
    place = 0
    while place < len(words) and words[place].startswith("-"):
        place += 2 if _needs_value(words[place], flags) else 1
    return -1 if place > len(words) else place


def _flag(word: str, flags: tuple[Flag, ...]) -> Flag | None:
    name = word.partition("=")[0]
    for flag in flags:
        if name == f"--{flag.name}" or (flag.short and name == f"-{flag.short}"):
            return flag
    return None


def _needs_value(word: str, flags: tuple[Flag, ...]) -> bool:
    if not word.startswith("-") or "=" in word:
        return False
    flag = _flag(word, flags)
    return flag is not None and not flag.kind.switch


def _flag_names(flags: tuple[Flag, ...]) -> list[str]:
    return [f"--{flag.name}" for flag in flags if not flag.hidden]


def _command(words: list[str]) -> tuple[str, list[str]]:
    """The command or group ``words`` start with, and the words after it."""
    known = set(lookup()) | set(GROUPS)
    path = ""
    for place, word in enumerate(words):
        longer = f"{path} {word}".strip()
        if longer not in known:
            return path, words[place:]
        path = longer
    return path, []


def _next_words(path: str) -> list[str]:
    names = set(lookup()) | set(GROUPS)
    lead = f"{path} " if path else ""
    return sorted(
        {name[len(lead) :].partition(" ")[0] for name in names if name.startswith(lead)}
        - {"__complete"}
    )


def _matching(names: list[str], start: str) -> list[str]:
    return [name for name in names if name.startswith(start)]


def _values(session: Session, flag: Flag | None, current: str) -> list[str]:
    if flag is None:
        return []
    return _objects(session, flag.complete, current)


def _objects(session: Session, kind: str, current: str) -> list[str]:
    """Names of objects of a kind; none when no daemon answers."""
    if kind in ("file", "directory"):
        return [FILES]
    if kind == "context":
        from sampan.cli.context_store import DEFAULT, ContextStore

        names = [DEFAULT, *ContextStore(session.config.directory).names()]
        return _matching(names, current)
    if not kind:
        return []
    try:
        return _matching(_ask(session, kind), current)
    except (SampanError, OSError):
        return []  # completion is a convenience: without a daemon there are no names


def _ask(session: Session, kind: str) -> list[str]:
    from sampan.cli.daemon import target
    from sampan.client.api import ApiClient

    client = ApiClient(target(session).endpoint, session.environment)
    if kind == "image":
        images = as_tables(client.get("/images/json"))
        return sorted(name for image in images for name in texts(image, "RepoTags"))
    if kind == "network":
        return [text(network, "Name") for network in as_tables(client.get("/networks"))]
    if kind == "volume":
        return [text(v, "Name") for v in tables(as_table(client.get("/volumes")), "Volumes")]
    filters = {
        "running": {"status": ["running", "paused"]},
        "stopped": {"status": ["created", "exited"]},
    }.get(kind, {})
    rows = as_tables(client.get("/containers/json", {"all": True, "filters": filters}))
    return sorted(name.removeprefix("/") for row in rows for name in texts(row, "Names"))


_BASH = """# bash completion of {program}
_{program}() {{
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == ":files" ]]; then
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$2")
            return
        fi
        COMPREPLY+=("$line")
    done < <({program} __complete "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2>/dev/null)
    [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
}}
complete -F _{program} {program}
"""
_ZSH = """#compdef {program}
_{program}() {{
    local -a found
    found=("${{(@f)$({program} __complete "${{(@)words[2,$CURRENT]}}" 2>/dev/null)}}")
    if [[ ${{found[1]}} == ":files" ]]; then
        _files
    else
        compadd -a found
    fi
}}
if [ "$funcstack[1]" = "_{program}" ]; then
    _{program} "$@"
else
    compdef _{program} {program}
fi
"""
_FISH = """# fish completion of {program}
function __{program}_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found ({program} __complete $words[2..-1] 2>/dev/null)
    if test "$found[1]" = ":files"
        __fish_complete_path (commandline -ct)
    else
        printf '%s\\n' $found
    end
end
complete -c {program} -f -a '(__{program}_complete)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str, program: str) -> str:
    """The completion script of a shell. Raises ``KeyError``."""
    return SCRIPTS[shell].format(program=os.path.basename(program))
