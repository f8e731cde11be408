"""A stage and its base's configuration -> the steps to do and the configuration they end in (pure).

Variables are replaced here; the order of steps is the order of the file. Each step carries what
the image's history says of it, in BuildKit's words.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sampan.build.history import copied, ran, said
from sampan.build.remote import is_remote
from sampan.dockerfile.config import Config, apply, command_words, strings
from sampan.dockerfile.config import Stage as Settings
from sampan.dockerfile.heredoc import Heredoc
from sampan.dockerfile.instructions import Arg, Copy, Instruction, Run, Setting, interpret
from sampan.dockerfile.lexer import Expansion, expand
from sampan.dockerfile.parser import DockerfileError, Node, parse
from sampan.dockerfile.run_mount import RunMount
from sampan.dockerfile.suggest import hint
from sampan.errors import InvalidParameter

#: Usable undeclared, and kept out of history and cache keys (reference.md, "Predefined ARGs").
PROXY_ARGUMENTS = frozenset(
    name
    for word in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (word, word.lower())
)
#: Arguments for the builder that steps do not see.
_NO_VARIABLES = frozenset(("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"))
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep:
    """Run a program on top of the layers so far."""

    words: tuple[str, ...]
    environment: tuple[str, ...]
    hidden_environment: tuple[str, ...]
    directory: str
    user: str
    mounts: tuple[RunMount, ...]
    network: str
    security: str
    devices: tuple[str, ...]
    stdin_script: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyStep:
    """Copy files from a context, stage or image; ``from_`` is empty for the main context.

    ``destination`` is absolute and ends with ``/`` when it must be a directory.
    """

    add: bool
    from_: str
    sources: tuple[str, ...]
    inline: tuple[Heredoc, ...]
    destination: str
    chown: str
    chmod: str
    link: bool
    parents: bool
    exclude: tuple[str, ...]
    keep_git_dir: bool
    checksum: str
    unpack: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectoryStep:
    """WORKDIR: the directory exists afterwards, owned by the stage's user."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One instruction of a stage: what it does to the files (None: nothing) and to the config.

    ``created_by`` is what the history says of it, "" when it has no entry.
    """

    node: Node
    created_by: str
    action: RunStep | CopyStep | MakeDirectoryStep | None
    config: Config
    author: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The steps of a stage and what a stage FROM it inherits.

    ``undefined`` are variables that were used and never declared: line, name, and what may have
    been meant.
    """

    steps: tuple[Step, ...]
    config: Config
    arguments: Mapping[str, str]
    undefined: tuple[tuple[int, str, str], ...] = ()
    author: str = ""


@dataclass(slots=True, kw_only=True)
class _Evaluator:
    settings: Settings
    given: Mapping[str, str]
    global_arguments: Mapping[str, str]
    arguments: dict[str, str]
    declared: dict[str, str]
    steps: list[Step] = field(default_factory=list)
    undefined: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def scope(self) -> dict[str, str]:
        proxies = {name: value for name, value in self.given.items() if name in PROXY_ARGUMENTS}
        return {**proxies, **self.arguments, **self.settings.environment}

    def word(self, text: str, node: Node) -> str:
        scope = self.scope
        return self.known(expand(text, scope, self.settings.escape), node, scope)

    def text(self, text: str, node: Node) -> str:
        """A here-document, whose quotes are part of it."""
        scope = self.scope
        expansion = expand(text, scope, self.settings.escape, plain_quotes=True)
        return self.known(expansion, node, scope)

    def known(self, expansion: Expansion, node: Node, scope: Mapping[str, str]) -> str:
        """The text; what was used in it and is declared nowhere before is noted."""
        names = ("PATH", *scope)
        self.undefined += (
            (node.start, name, hint(name, names, "$"))
            for name in sorted(expansion.undefined.difference(self.declared, ("PATH",)))
        )
        return expansion.text

    def instruction(self, node: Node, instruction: Instruction) -> None:
        match instruction:
            case Arg():
                self.arg(node, instruction)
            case Run():
                self.run(node, instruction)
            case Copy():
                self.copy(node, instruction)
            case _:
                self.configure(node, instruction)

    def arg(self, node: Node, instruction: Arg) -> None:
        shown: list[str] = []
        for name, default in instruction.pairs:
            value = self.given.get(name)
            if value is None and default is not None:
                value = self.word(default, node)
            if value is None:
                value = self.global_arguments.get(name)
            self.declared[name] = value or ""
            if value is not None:
                self.arguments[name] = value
            shown.append(name if value is None else f"{name}={value}")
        self.add(node, f"ARG {' '.join(shown)}")

    def configure(self, node: Node, instruction: Instruction) -> None:
        scope = self.scope
        self.settings = apply(self.settings, instruction, scope)

        def word(text: str) -> str:
            return self.known(expand(text, scope, self.settings.escape), node, scope)

        action = None
        if isinstance(instruction, Setting) and instruction.keyword == "workdir":
            action = MakeDirectoryStep(path=str(self.settings.config["WorkingDir"]))
        self.add(node, said(instruction, self.settings, word), action)

    def run(self, node: Node, instruction: Run) -> None:
        if instruction.devices:
            raise DockerfileError(
                f"RUN --device={instruction.devices[0]}: devices in builds are not supported",
                node.start,
            )
        words, script = _run_words(instruction, self.settings.shell)
        arguments = sorted(
            f"{name}={value}"
            for name, value in self.arguments.items()
            if name not in self.settings.environment and name not in _NO_VARIABLES
        )
        environment = strings(self.settings.config, "Env")
        if "PATH" not in self.settings.environment:
            environment = [f"PATH={DEFAULT_PATH}", *environment]
        hidden = [
            f"{name}={value}"
            for name, value in self.given.items()
            if name in PROXY_ARGUMENTS and name not in self.arguments
        ]
        action = RunStep(
            words=tuple(words),
            environment=(*arguments, *environment),
            hidden_environment=tuple(sorted(hidden)),
            directory=str(self.settings.config.get("WorkingDir") or "/"),
            user=str(self.settings.config.get("User") or ""),
            mounts=instruction.parsed_mounts(lambda text: self.word(text, node)),
            network=instruction.network,
            security=instruction.security,
            devices=instruction.devices,
            stdin_script=script,
        )
        text = ran(tuple(words), self.declared, self.settings.environment)
        self.add(node, text, action)

    def copy(self, node: Node, instruction: Copy) -> None:
        def one(text: str) -> str:
            return self.word(text, node)

        if expand(instruction.from_, {}, self.settings.escape).text != instruction.from_:
            raise DockerfileError(
                "variable expansion is not supported for --from, define a new stage with FROM "
                "using ARG from global scope as a workaround",
                node.start,
            )
        destination = one(instruction.destination)
        base = str(self.settings.config.get("WorkingDir") or "/")
        absolute = posixpath.normpath(posixpath.join("/", base, destination))
        if destination.endswith(("/", "/.")) or destination in ("", "."):
            absolute = absolute.rstrip("/") + "/"
        sources = tuple(one(source) for source in instruction.sources)
        if instruction.checksum and (wrong := _unchecked(instruction, sources)):
            raise DockerfileError(wrong, node.start)
        if len(sources) + len(instruction.heredocs) > 1 and not absolute.endswith("/"):
            raise DockerfileError(
                f"When using {node.keyword.upper()} with more than one source file, "
                "the destination must be a directory and end with a /",
                node.start,
            )
        inline = tuple(
            replace(doc, content=self.text(doc.content, node)) if doc.expand else doc
            for doc in instruction.heredocs
        )
        action = CopyStep(
            add=instruction.add,
            from_=instruction.from_,
            sources=sources,
            inline=inline,
            destination=absolute,
            chown=one(instruction.chown),
            chmod=one(instruction.chmod),
            link=instruction.link,
            parents=instruction.parents,
            exclude=tuple(one(pattern) for pattern in instruction.exclude),
            keep_git_dir=instruction.keep_git_dir,
            checksum=one(instruction.checksum),
            unpack=instruction.unpack,
        )
        self.add(node, copied(instruction, sources, destination, one), action)

    def add(
        self,
        node: Node,
        created_by: str,
        action: RunStep | CopyStep | MakeDirectoryStep | None = None,
    ) -> None:
        self.steps.append(
            Step(
                node=node,
                created_by=created_by,
                action=action,
                config=self.settings.config,
                author=self.settings.author,
            )
        )


def evaluate(
    steps: Sequence[tuple[Node, Instruction]],
    base: Config,
    *,
    given: Mapping[str, str],
    global_arguments: Mapping[str, str],
    inherited: Mapping[str, str] | None = None,
    escape: str = "\\",
) -> Evaluation:
    """What a stage does, given its base's configuration.

    ``given`` are the caller's build arguments, ``global_arguments`` those before the first FROM
    and the platform's, ``inherited`` the arguments of the stage this one is FROM. Triggers of the
    base (ONBUILD) come first. Raises :class:`DockerfileError` naming the line.
    """
    config = {key: value for key, value in base.items() if key != "OnBuild"}
    evaluator = _Evaluator(
        settings=Settings(config=config, escape=escape),
        given=given,
        global_arguments=global_arguments,
        arguments=dict(inherited or {}),
        declared=dict(inherited or {}),
    )
    for node, instruction in (*_triggers(base), *steps):
        try:
            evaluator.instruction(node, instruction)
        except DockerfileError as error:
            raise DockerfileError(error.reason, error.line or node.start) from None
        except InvalidParameter as error:
            raise DockerfileError(error.message, node.start) from error
    return Evaluation(
        steps=tuple(evaluator.steps),
        config=evaluator.settings.config,
        arguments=evaluator.arguments,
        undefined=tuple(dict.fromkeys(evaluator.undefined)),
        author=evaluator.settings.author,
    )


def _unchecked(instruction: Copy, sources: Sequence[str]) -> str:
    """Why ``--checksum`` has nothing to check; "" when it has."""
    if not instruction.add:
        return "checksum can't be specified for COPY"
    if len(sources) != 1:
        return "checksum can't be specified for multiple sources"
    return "" if is_remote(sources[0]) else "checksum requires HTTP(S) or Git sources"


def _triggers(base: Config) -> list[tuple[Node, Instruction]]:
    nodes = [node for text in strings(base, "OnBuild") for node in parse(text).nodes]
    return [(node, interpret(node)) for node in nodes]


def _run_words(instruction: Run, shell: Sequence[str]) -> tuple[list[str], str]:
    """The words to execute, and the text to give the program as its script.

    One heredoc alone is the script of the shell or of its ``#!`` line; otherwise the shell reads
    the command with its here-documents as written.
    """
    command = instruction.command
    if not command.heredocs or not command.shell:
        return command_words(command, tuple(shell)), ""
    first = command.heredocs[0]
    line = command.words[0]
    alone = len(command.heredocs) == 1 and line.startswith("<<") and len(line.split()) == 1
    if alone and first.content.startswith("#!"):
        return [f"<<{first.name}"], first.content
    if alone:
        return [*shell, first.content], ""
    bodies = "".join(f"\n{doc.content}{doc.name}" for doc in command.heredocs)
    return [*shell, f"{line}{bodies}"], ""
