"""Stages and steps: scoping of arguments, paths, triggers, history."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from sampan.build.stages import Plan, plan, platform_arguments
from sampan.build.steps import CopyStep, Evaluation, MakeDirectoryStep, RunStep, evaluate
from sampan.dockerfile.config import Config
from sampan.dockerfile.parser import DockerfileError, parse
from sampan.errors import InvalidParameter
from sampan.model.platform import Platform

ARM = Platform(os="linux", architecture="arm64")
AMD = Platform(os="linux", architecture="amd64")


def planned(text: str, **given: str) -> Plan:
    return plan(parse(text), given, platform_arguments(ARM, AMD))


def evaluated(text: str, base: Config | None = None, **given: str) -> Evaluation:
    found = planned(text, **given)
    return evaluate(
        found.stages[-1].steps, base or {}, given=given, global_arguments=found.arguments
    )


def test_only_needed_stages_in_order() -> None:
    found = planned(
        "FROM a AS one\nFROM b AS two\nFROM c AS unused\n"
        "FROM one\nRUN --mount=from=two,target=/t x\nCOPY --from=1 a b\n"
    )
    assert [stage.title for stage in found.needed(found.target())] == ["one", "two", "stage-3"]
    assert found.needed(found.target("TWO"))[-1].index == 1
    with pytest.raises(InvalidParameter, match="could not be found"):
        found.target("nope")


def test_a_stage_sees_only_earlier_stages() -> None:
    found = planned("FROM a AS x\nFROM x AS x\n")
    assert [stage.index for stage in found.needed(found.target())] == [0, 1]


def test_from_uses_global_arguments_and_platforms() -> None:
    found = planned("ARG v=1\nARG w=$v.2\nFROM --platform=$BUILDPLATFORM a:${w}\n", v="3")
    assert found.base_of(found.stages[0]) == "a:3.2"
    assert found.platform_of(found.stages[0], ARM) == AMD
    blank = planned("ARG b\nFROM $b\n")
    with pytest.raises(DockerfileError, match="should not be blank"):
        blank.base_of(blank.stages[0])


def run_environments(found: Evaluation) -> list[tuple[str, ...]]:
    return [step.action.environment for step in found.steps if isinstance(step.action, RunStep)]


def test_argument_scope() -> None:
    found = evaluated(
        "ARG g=global\nFROM x\nRUN a\nARG g\nARG d=$g-d\nRUN b\nENV d=env\nRUN c\n",
        {"Env": ["PATH=/p"]},
    )
    assert run_environments(found) == [
        ("PATH=/p",),
        ("d=global-d", "g=global", "PATH=/p"),
        ("g=global", "PATH=/p", "d=env"),
    ]
    assert found.steps[3].created_by == "RUN |2 g=global d=global-d /bin/sh -c b # buildkit"


def test_proxies_reach_the_program_but_not_the_history() -> None:
    found = evaluated("FROM x\nRUN a\n", HTTP_PROXY="http://user:secret@proxy")
    (step,) = found.steps
    assert isinstance(step.action, RunStep)
    assert step.action.hidden_environment == ("HTTP_PROXY=http://user:secret@proxy",)
    assert "secret" not in step.created_by
    assert not any("secret" in entry for entry in step.action.environment)


def test_paths_follow_the_working_directory() -> None:
    found = evaluated("FROM x\nWORKDIR /a\nWORKDIR b\nCOPY c .\nCOPY d e\nCOPY f /g/\n")
    copies = [step.action for step in found.steps if isinstance(step.action, CopyStep)]
    assert [copy.destination for copy in copies] == ["/a/b/", "/a/b/e", "/g/"]
    assert found.steps[1].action == MakeDirectoryStep(path="/a/b")


def test_heredocs() -> None:
    found = evaluated(
        "FROM x\nENV v=1\nRUN <<E\necho $v\nE\nRUN <<E\n#!/usr/bin/python3\nprint()\nE\n"
        "RUN cat <<E >f\n$v\nE\nCOPY <<E /a\nv is $v\nE\nCOPY <<'E' /b\nv is $v\nE\n"
    )
    runs = [step.action for step in found.steps if isinstance(step.action, RunStep)]
    assert runs[0].words == ("/bin/sh", "-c", "echo $v\n")
    assert runs[1].stdin_script == "#!/usr/bin/python3\nprint()\n"
    assert runs[2].words == ("/bin/sh", "-c", "cat <<E >f\n$v\nE")
    copies = [step.action for step in found.steps if isinstance(step.action, CopyStep)]
    assert [copy.inline[0].content for copy in copies] == ["v is 1\n", "v is $v\n"]


def test_triggers_of_the_base_run_first_and_are_not_inherited() -> None:
    found = evaluated("FROM x\nRUN own\n", {"OnBuild": ["RUN trigger", "ENV a=b"]})
    assert [step.created_by.split()[0] for step in found.steps] == ["RUN", "ENV", "RUN"]
    assert "OnBuild" not in found.config
    assert found.config["Env"] == ["a=b"]


def test_undefined_variables_are_noted_with_their_line() -> None:
    assert evaluated("FROM x\nLABEL a=b\nCOPY $nope /\n").undefined == ((3, "nope", ""),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN x\n", "line 1: no build stage"),
        ("FROM x\nCOPY a b /c\n", "line 2: .*must be a directory"),
        ("FROM x\nLABEL a=${b?}\n", "line 2: b: not allowed to be unset"),
        ("FROM x\n\nEXPOSE x\n", "line 3: invalid containerPort"),
    ],
)
def test_errors_name_the_line(text: str, message: str) -> None:
    given: Mapping[str, str] = {}
    with pytest.raises(DockerfileError, match=message):
        evaluated(text, **given)


def test_maintainer_is_taken_as_written() -> None:
    found = evaluated("FROM x\nENV E=1\nMAINTAINER a \"b\" $E $NONE 'c'\n")
    assert found.author == "a \"b\" $E $NONE 'c'"
    assert found.steps[-1].created_by == "MAINTAINER a \"b\" $E $NONE 'c'"
    assert found.undefined == ()


def test_history_says_what_buildkit_says() -> None:
    found = evaluated(
        'FROM x\nARG A\nENV E=1 F=$E\nLABEL l=\'a b\'\nCMD echo "$E"\nENTRYPOINT ["a", "b c"]\n'
        "USER u$E\nEXPOSE 80 7000-7001/udp\nVOLUME /a /b\nSTOPSIGNAL INT\nWORKDIR w\n"
        "HEALTHCHECK --interval=90s --timeout=1500ms CMD true || false\nONBUILD RUN x\n"
        'SHELL ["/bin/ash", "-c"]\nRUN x\nCOPY --from=x --chown=u$E --link a b /d/\n',
        {"Env": ["PATH=/p"]},
    )
    assert [step.created_by for step in found.steps] == [
        "ARG A",
        "ENV E=1 F=",
        "LABEL l=a b",
        'CMD ["/bin/sh" "-c" "echo \\"$E\\""]',
        'ENTRYPOINT ["a" "b c"]',
        "USER u1",
        "EXPOSE [80/tcp 7000/udp 7001/udp]",
        "VOLUME [/a /b]",
        "STOPSIGNAL INT",
        "WORKDIR /w",
        "HEALTHCHECK {Test:[CMD-SHELL true || false] Interval:1m30s Timeout:1.5s StartPeriod:0s "
        "StartInterval:0s Retries:0}",
        "",
        "SHELL [/bin/ash -c]",
        "RUN |1 A= /bin/ash -c x # buildkit",
        "COPY --chown=u1 a b /d/ # buildkit",
    ]
