"""``ContainerConfig`` of images for clients before API 1.45, made up from an image's history.

docker's classic builder kept the configuration of the container that ran an image's last step;
compose of old reads image volumes and build arguments from it.
"""

from __future__ import annotations

import re
import shlex

_SHELL = ("/bin/sh", "-c")
_ARGUMENTS = re.compile(r"\|(\d+) ")


def step_command(created_by: str) -> list[str]:
    """The command of the container that made a layer, as the classic builder had it.

    ``created_by`` is a history entry's text: of BuildKit (``RUN |1 a=b /bin/sh -c true #
    buildkit``, ``CMD ["sh"]``) or of the classic builder (``|1 a=b /bin/sh -c true``).
    """
    text = created_by.removesuffix(" # buildkit")
    instruction, _, rest = text.partition(" ")
    if instruction == "RUN":
        text = rest
    elif instruction.isalpha() and instruction.isupper():
        return [*_SHELL, "#(nop) ", text]
    words: list[str] = []
    if found := _ARGUMENTS.match(text):
        words.append(found[0].strip())
        text = text[found.end() :]
        for _ in range(int(found[1])):
            argument, _, text = text.partition(" ")
            words.append(argument)
    script = text.removeprefix("/bin/sh -c ")
    if script != text:
        marker, nop, instruction = script.partition("#(nop) ")
        return [*words, *_SHELL, *((nop, instruction.strip()) if nop and not marker else (script,))]
    try:
        return [*words, *shlex.split(text)]
    except ValueError:
        return [*words, *text.split()]
