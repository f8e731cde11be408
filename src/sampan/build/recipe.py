"""A build written in Python instead of a Dockerfile (pure).

::

    app = (
        from_("debian:bookworm")
        .run("apt-get update && apt-get install -y curl")
        .copy("src", "/app", chown="1000")
        .workdir("/app")
        .env(LANG="C.UTF-8")
        .entrypoint(["./serve"])
    )
    engine.build(app, context=".", tags=["app"])

A recipe never changes: every method returns a new one, so recipes share beginnings. Copying from
another recipe makes that a stage. It comes down to a Dockerfile, whose cache it shares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sampan.errors import InvalidParameter

Words = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A stage: what it is based on, and the instructions on top. Made by :func:`from_`."""

    base: str | Recipe
    platform: str = ""
    lines: tuple[str | tuple[str, Recipe, str], ...] = ()

    def run(
        self,
        command: Words,
        *,
        mounts: Sequence[str] = (),
        network: str = "",
        security: str = "",
    ) -> Recipe:
        """Run a program (a sequence of words) or a shell's script (text, any lines).

        ``mounts`` are values of ``RUN --mount``, ``network`` and ``security`` those of its flags.
        """
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else [*command]
        flags = [f"--mount={one}" for one in mounts]
        flags += [f"--network={network}"] if network else []
        flags += [f"--security={security}"] if security else []
        return self._with("RUN", *flags, _json(words))

    def copy(
        self,
        sources: Words,
        destination: str,
        *,
        from_: str | Recipe = "",
        chown: str = "",
        chmod: str = "",
        link: bool = False,
        parents: bool = False,
        exclude: Sequence[str] = (),
    ) -> Recipe:
        """Copy from the context, or from another recipe or an image."""
        flags = _flags(chown=chown, chmod=chmod)
        flags += ["--link"] if link else []
        flags += ["--parents"] if parents else []
        flags += [f"--exclude={one}" for one in exclude]
        paths = _json([*_words(sources), destination])
        if isinstance(from_, Recipe):
            entry = ("COPY --from=", from_, " ".join((*flags, paths)))
            return replace(self, lines=(*self.lines, entry))
        return self._with("COPY", *_flags(**{"from": from_}), *flags, paths)

    def add(
        self,
        sources: Words,
        destination: str,
        *,
        chown: str = "",
        chmod: str = "",
        checksum: str = "",
        link: bool = False,
        unpack: bool | None = None,
        keep_git_dir: bool = False,
    ) -> Recipe:
        """Copy, fetch from a URL or a git repository, or unpack a local archive."""
        flags = _flags(chown=chown, chmod=chmod, checksum=checksum)
        flags += ["--link"] if link else []
        flags += ["--keep-git-dir=true"] if keep_git_dir else []
        flags += [] if unpack is None else [f"--unpack={str(unpack).lower()}"]
        return self._with("ADD", *flags, _json([*_words(sources), destination]))

    def env(self, values: Mapping[str, str] | None = None, /, **more: str) -> Recipe:
        """Set environment variables, as they are (``$`` stands for itself)."""
        return self._pairs("ENV", {**(values or {}), **more})

    def label(self, values: Mapping[str, str] | None = None, /, **more: str) -> Recipe:
        """Set labels."""
        return self._pairs("LABEL", {**(values or {}), **more})

    def arg(self, name: str, default: str | None = None) -> Recipe:
        """A build argument that steps after it see in their environment."""
        return self._with("ARG", name if default is None else f"{name}={_quoted(default)}")

    def workdir(self, path: str) -> Recipe:
        """The directory steps and the image's program start in; made if need be."""
        return self._with("WORKDIR", _literal(path))

    def user(self, user: str) -> Recipe:
        """Who steps and the image's program run as."""
        return self._with("USER", _literal(user))

    def expose(self, *ports: str | int) -> Recipe:
        """Ports the image's program listens on."""
        return self._with("EXPOSE", *(_literal(str(port)) for port in ports))

    def volume(self, *paths: str) -> Recipe:
        """Directories that get a volume of their own."""
        return self._with("VOLUME", _json(paths))

    def cmd(self, command: Words) -> Recipe:
        """What the image runs, or the arguments of its entrypoint."""
        return self._with("CMD", _json(_shell(command)))

    def entrypoint(self, command: Words) -> Recipe:
        """The program the image is."""
        return self._with("ENTRYPOINT", _json(_shell(command)))

    def shell(self, words: Sequence[str]) -> Recipe:
        """The shell of shell forms in images based on this one."""
        return self._with("SHELL", _json(words))

    def stopsignal(self, signal: str) -> Recipe:
        """The signal that asks the image's program to end."""
        return self._with("STOPSIGNAL", _literal(signal))

    def healthcheck(
        self,
        command: Words | None,
        *,
        interval: str = "",
        timeout: str = "",
        start_period: str = "",
        retries: int = 0,
    ) -> Recipe:
        """How to tell that a container is healthy; None switches an inherited check off."""
        if command is None:
            return self._with("HEALTHCHECK", "NONE")
        flags = _flags(interval=interval, timeout=timeout)
        flags += _flags(**{"start-period": start_period})
        flags += [f"--retries={retries}"] if retries else []
        return self._with("HEALTHCHECK", *flags, "CMD", _json(_shell(command)))

    def onbuild(self, instruction: str) -> Recipe:
        """An instruction for builds based on the image, as a Dockerfile has it."""
        return self._with("ONBUILD", _line(instruction))

    def dockerfile(self) -> str:
        """The recipe as a Dockerfile."""
        order: list[Recipe] = []
        _collect(self, order)
        names = {id(recipe): f"recipe-{number}" for number, recipe in enumerate(order)}
        return "".join(f"{line}\n" for recipe in order for line in recipe._lines(names))

    def _lines(self, names: Mapping[int, str]) -> list[str]:
        base = self.base if isinstance(self.base, str) else names[id(self.base)]
        platform = f"--platform={self.platform} " if self.platform else ""
        lines = [f"FROM {platform}{base} AS {names[id(self)]}"]
        for line in self.lines:
            if isinstance(line, str):
                lines.append(line)
            else:
                head, recipe, rest = line
                lines.append(f"{head}{names[id(recipe)]} {rest}")
        return lines

    def _with(self, *parts: str) -> Recipe:
        return replace(self, lines=(*self.lines, _line(" ".join(parts))))

    def _pairs(self, keyword: str, values: Mapping[str, str]) -> Recipe:
        if not values:
            return self
        return self._with(keyword, *(f"{_quoted(key)}={_quoted(values[key])}" for key in values))


def from_(base: str | Recipe, *, platform: str = "") -> Recipe:
    """A recipe on top of an image, of ``scratch``, or of another recipe."""
    if isinstance(base, str):
        _literal(base)
    return Recipe(base, platform)


def _collect(recipe: Recipe, order: list[Recipe]) -> None:
    """``recipe`` after everything it needs, each once."""
    if any(known is recipe for known in order):
        return
    needed = [recipe.base, *(line[1] for line in recipe.lines if not isinstance(line, str))]
    for one in needed:
        if isinstance(one, Recipe):
            _collect(one, order)
    order.append(recipe)


def _words(words: Words) -> list[str]:
    return [words] if isinstance(words, str) else [*words]


def _shell(command: Words) -> list[str]:
    return ["/bin/sh", "-c", command] if isinstance(command, str) else [*command]


def _flags(**values: str) -> list[str]:
    return [f"--{name}={_literal(value)}" for name, value in values.items() if value]


def _json(words: Sequence[str]) -> str:
    return json.dumps([*words])


def _quoted(text: str) -> str:
    """A word nothing in which is expanded."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{_line(escaped)}"'


def _literal(text: str) -> str:
    """A word that may not be more than one."""
    if not text or any(character.isspace() or character in "\"'\\" for character in text):
        raise InvalidParameter(f"{text!r} cannot be written in an instruction")
    return text


def _line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise InvalidParameter(f"{text[:60]!r} may not have several lines")
    return text
