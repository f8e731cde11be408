"""The classic builder's news: in the order of the steps, whichever are worked on at once."""

from __future__ import annotations

from sampan.build.progress import Vertex
from sampan.engine.classicprogress import ClassicProgress

TEXTS = ("FROM busybox AS a", "RUN one", "FROM a", "RUN two")


def vertex(step: int) -> Vertex:
    return Vertex(id=str(step), name="", step=step, steps=4, instruction=TEXTS[step - 1])


async def told(news: ClassicProgress) -> str:
    return "".join([str(one["stream"]) async for one in news])


def news() -> ClassicProgress:
    return ClassicProgress(quiet=False, image_of=lambda name: {"busybox": "1234"}.get(name, ""))


async def test_steps_are_told_in_their_order() -> None:
    made = news()
    made.started(vertex(3))
    made.started(vertex(1))
    made.log(Vertex(id="x", name="import"), 1, b"elsewhere\n")
    made.completed(vertex(1))
    made.started(vertex(2))
    made.completed(vertex(3))
    made.started(vertex(4))
    made.log(vertex(4), 1, b"early\n")
    made.log(vertex(2), 2, b"late\n")
    made.completed(vertex(2))
    made.completed(vertex(4), cached=True)
    made.end()
    assert (await told(made)).splitlines() == [
        "Step 1/4 : FROM busybox AS a",
        "elsewhere",
        " ---> 1234",
        "Step 2/4 : RUN one",
        "\x1b[91mlate",
        "\x1b[0mStep 3/4 : FROM a",
        "Step 4/4 : RUN two",
        "early",
        " ---> Using cache",
    ]


async def test_what_comes_after_a_failure_is_left_out() -> None:
    made = news()
    for step in (1, 2, 3, 4):
        made.started(vertex(step))
    made.completed(vertex(1))
    made.log(vertex(4), 1, b"never seen\n")
    made.completed(vertex(2), error="it failed")
    made.end()
    assert (await told(made)).splitlines() == [
        "Step 1/4 : FROM busybox AS a",
        " ---> 1234",
        "Step 2/4 : RUN one",
    ]
