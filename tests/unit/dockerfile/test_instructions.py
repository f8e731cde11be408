"""Instructions: flags, forms and the errors that name them."""

from __future__ import annotations

import pytest

from sampan.dockerfile.duration import parse_duration
from sampan.dockerfile.instructions import (
    Arg,
    Copy,
    From,
    Health,
    OnBuild,
    Pairs,
    Program,
    Run,
    interpret,
)
from sampan.dockerfile.parser import DockerfileError, parse, parse_instruction
from sampan.dockerfile.run_mount import RunMount


def one(text: str) -> object:
    return interpret(parse_instruction(text))


def test_from() -> None:
    assert one("FROM --platform=linux/arm64 a:1 AS Base") == From(
        base="a:1", name="base", platform="linux/arm64", as_keyword="AS"
    )


def test_arg() -> None:
    assert one('ARG a b=1 c="x y"') == Arg(pairs=(("a", None), ("b", "1"), ("c", '"x y"')))


def test_copy_and_add() -> None:
    copy = one("COPY --from=0 --chown=1:2 --link --exclude=*.o --exclude=b a b /c/")
    assert copy == Copy(
        add=False,
        sources=("a", "b"),
        destination="/c/",
        from_="0",
        chown="1:2",
        link=True,
        exclude=("*.o", "b"),
    )
    add = one("ADD --checksum=sha256:00 --unpack=false u /d")
    assert isinstance(add, Copy)
    assert (add.add, add.checksum, add.unpack) == (True, "sha256:00", False)


def test_a_copied_heredoc_is_not_a_source() -> None:
    node = parse("FROM x\nCOPY <<EOF b /c/\ntext\nEOF\n").nodes[1]
    copy = interpret(node)
    assert isinstance(copy, Copy)
    assert copy.sources == ("b",)
    assert copy.heredocs[0].content == "text\n"


def test_run_mounts() -> None:
    run = one(
        "RUN --mount=type=cache,target=$D,sharing=locked --mount=target=/s,rw --network=none x"
    )
    assert isinstance(run, Run)
    mounts = run.parsed_mounts(lambda text: text.replace("$D", "/var/cache"))
    assert mounts == (
        RunMount(type="cache", target="/var/cache", id="/var/cache", sharing="locked"),
        RunMount(type="bind", target="/s"),
    )
    assert run.network == "none"


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=secret,id=k", RunMount(type="secret", id="k", target="/run/secrets/k")),
        ("type=secret,id=k,env=K", RunMount(type="secret", id="k", env="K")),
        ("type=ssh", RunMount(type="ssh", id="default")),
        ("type=tmpfs,target=/t,size=1m", RunMount(type="tmpfs", target="/t", size=1 << 20)),
        (
            "target=/s,from=b,src=/x",
            RunMount(type="bind", target="/s", from_="b", source="/x", read_only=True),
        ),
    ],
)
def test_run_mount(text: str, mount: RunMount) -> None:
    run = one(f"RUN --mount={text} x")
    assert isinstance(run, Run)
    assert run.parsed_mounts(str) == (mount,)


def test_health() -> None:
    assert one("HEALTHCHECK --interval=5s --retries=3 CMD a b") == Health(
        test=("CMD-SHELL", "a b"), interval=5_000_000_000, retries=3
    )
    assert one("HEALTHCHECK none") == Health(test=("NONE",))
    assert one('HEALTHCHECK CMD ["a"]') == Health(test=("CMD", "a"))


def test_the_rest() -> None:
    assert one("ONBUILD RUN x") == OnBuild(trigger="RUN x")
    assert one("LABEL a b c") == Pairs(label=True, pairs=(("a", "b c"),), legacy=True)
    program = one("ENTRYPOINT x y")
    assert isinstance(program, Program)
    assert program.command.shell


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FORM x", r"unknown instruction: FORM \(did you mean FROM\?\)"),
        ("FROM a b", "either one or three"),
        ("FROM a AS 1", "invalid name for build stage"),
        ("COPY --form=x a b", r"unknown flag: --form \(did you mean from\?\)"),
        ("COPY --link=maybe a b", "boolean value for flag link"),
        ("COPY --chown=1 --chown=2 a b", "duplicate flag"),
        ("COPY --chown a b", "missing a value"),
        ("COPY a", "at least two arguments"),
        ("ADD --from=x a b", "unknown flag: --from"),
        ("RUN --network=x y", "network mode"),
        ("RUN", "RUN requires"),
        ("ENV", "ENV requires"),
        ("ENV =x", "can not be blank"),
        ("SHELL x", "JSON form"),
        ("HEALTHCHECK --interval=x CMD y", "invalid duration"),
        ("HEALTHCHECK --interval=1us CMD y", "less than 1ms"),
        ("HEALTHCHECK --retries=-1 CMD y", "negative"),
        ("HEALTHCHECK x", "unknown type"),
        ("ONBUILD ONBUILD RUN x", "Chaining"),
        ("ONBUILD FROM x", "isn't allowed"),
        ("USER", "exactly one"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message):
        one(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=x", "unsupported mount type"),
        ("type=cache", "target is required"),
        ("type=secret", "empty secret id"),
        ("type=tmpfs,target=/t,id=1", "unexpected key 'id'"),
        ("type=cache,target=/t,sharing=x", "sharing"),
        ("type=cache,target=/t,mode=9", "for mode"),
        ("target", "key=value"),
    ],
)
def test_refused_mounts(text: str, message: str) -> None:
    run = one(f"RUN --mount={text} x")
    assert isinstance(run, Run)
    with pytest.raises(DockerfileError, match=message):
        run.parsed_mounts(str)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("1h30m", 5_400_000_000_000), ("1.5s", 1_500_000_000), ("0", 0), ("5", None), ("", None)],
)
def test_duration(text: str, nanoseconds: int | None) -> None:
    assert parse_duration(text) == nanoseconds
