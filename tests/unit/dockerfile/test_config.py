"""What instructions do to an image's configuration."""

from __future__ import annotations

import pytest

from sampan.dockerfile.config import Config, Stage, apply
from sampan.dockerfile.instructions import interpret
from sampan.dockerfile.parser import DockerfileError, parse_instruction


def after(*lines: str, config: Config | None = None, **variables: str) -> Config:
    stage = Stage(config=config or {})
    for line in lines:
        stage = apply(stage, interpret(parse_instruction(line)), variables)
    return stage.config


def test_env_sees_the_values_from_before_the_instruction() -> None:
    config = after("ENV abc=hello", "ENV abc=bye def=$abc", "ENV ghi=$abc")
    assert config["Env"] == ["abc=bye", "def=hello", "ghi=bye"]


def test_env_wins_over_arguments() -> None:
    assert after("ENV a=env", "LABEL l=$a$b", a="arg", b="!")["Labels"] == {"l": "env!"}


def test_entrypoint_resets_only_an_inherited_command() -> None:
    assert after('ENTRYPOINT ["e"]', config={"Cmd": ["inherited"]})["Cmd"] is None
    assert after("CMD a", 'ENTRYPOINT ["e"]')["Cmd"] == ["/bin/sh", "-c", "a"]


def test_shell_is_used_by_what_follows() -> None:
    config = after('SHELL ["/bin/bash", "-ec"]', "CMD a b")
    assert config["Cmd"] == ["/bin/bash", "-ec", "a b"]


def test_working_directories_stack() -> None:
    assert after("WORKDIR /a", "WORKDIR b/../c")["WorkingDir"] == "/a/c"
    assert after("WORKDIR x")["WorkingDir"] == "/x"


def test_ports_volumes_user_and_signal() -> None:
    config = after("EXPOSE 80 53/UDP $p", "VOLUME a", 'VOLUME ["b c"]', "USER me", p="90-91")
    assert list(config["ExposedPorts"] or {}) == ["80/tcp", "53/udp", "90/tcp", "91/tcp"]  # type: ignore[call-overload]
    assert config["Volumes"] == {"a": {}, "b c": {}}
    assert after("STOPSIGNAL SIGRTMIN+3")["StopSignal"] == "SIGRTMIN+3"


def test_health_and_triggers() -> None:
    config = after("HEALTHCHECK --timeout=1s CMD x", "ONBUILD RUN a", "ONBUILD COPY . /")
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "x"], "Timeout": 1_000_000_000}
    assert config["OnBuild"] == ["RUN a", "COPY . /"]


@pytest.mark.parametrize("line", ["EXPOSE 0", "EXPOSE 80:x", "EXPOSE 1/x", "STOPSIGNAL a b"])
def test_wrong_values_are_refused(line: str) -> None:
    with pytest.raises(DockerfileError):
        after(line)


def test_file_changes_are_not_configuration() -> None:
    with pytest.raises(DockerfileError, match="not a change of configuration"):
        after("COPY a b")
