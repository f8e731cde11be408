"""Which images a policy removes."""

from __future__ import annotations

from sampan.engine.config import ImageGarbage
from sampan.engine.imagepolicy import Candidate, removable, too_old


def candidate(key: str, *repositories: str, used: float = 0, busy: bool = False) -> Candidate:
    number = float(key[-1])
    return Candidate(key=key, repositories=repositories, came=number, used=used, busy=busy)


def test_the_newest_of_a_repository_and_what_is_busy_stay() -> None:
    images = [
        candidate("a1", "x", used=9),
        candidate("a2", "x", used=3),
        candidate("a3", "x", "y"),
        candidate("a4", busy=True),
        candidate("a5", used=1),
    ]

    def left(keep_last: int) -> list[str]:
        return [item.key for item in removable(ImageGarbage(keep_last=keep_last), images)]

    assert left(0) == ["a3", "a5", "a2", "a1"]
    assert left(1) == ["a5", "a2", "a1"]
    assert left(3) == ["a5"]


def test_age() -> None:
    image = candidate("a1", used=100)
    assert too_old(ImageGarbage(max_age=10), image, 111)
    assert not too_old(ImageGarbage(max_age=10), image, 110)
    assert not too_old(ImageGarbage(max_size=0), image, 1e9)
