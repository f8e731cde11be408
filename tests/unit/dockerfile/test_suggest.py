"""What a misspelt name may have meant."""

from sampan.dockerfile.suggest import hint, nearest


def test_the_nearest_name() -> None:
    assert nearest("bulid", ["build", "test"]) == "build"
    assert nearest("build", ["built", "build"]) == "", "it is there"
    assert nearest("x", ["release"]) == ""
    assert nearest("abc", ["abd", "abe"]) == "abd", "the first of the nearest"
    assert hint("TARGTPLATFORM", ["TARGETPLATFORM"], "$") == " (did you mean $TARGETPLATFORM?)"
    assert hint("a", ["bcd"]) == ""
