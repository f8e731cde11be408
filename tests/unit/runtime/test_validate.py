"""config.json against the schema: the specification's own examples, and errors that say where."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.spec import SPEC

from sampan.errors import InvalidParameter
from sampan.runtime import validate

SCHEMA = SPEC / "oci-runtime/schema"
ROOT = Path(__file__).parents[3]
LINUX = [
    path
    for path in sorted((SCHEMA / "test/config").glob("*/*.json"))
    if not path.name.startswith(("freebsd", "zos", "windows", "solaris"))
]
MINIMAL = {"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "process": {"cwd": "/"}}


def check(**parts: object) -> list[str]:
    return validate.parse_config(json.dumps({**MINIMAL, **parts}).encode())[1]


def test_shipped_schema_is_made_from_the_specification() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "tools/generate_oci_schema.py", SCHEMA],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert made == (ROOT / "src/sampan/runtime/oci-schema.json").read_text()


@pytest.mark.parametrize("path", LINUX, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_examples_of_the_specification(path: Path) -> None:
    if path.parent.name == "good":
        # One of them still says 0.5.0-dev, and has a field of 2017.
        document = {**json.loads(path.read_text()), "ociVersion": "1.2.0"}
        unknown = validate.parse_config(json.dumps(document).encode())[1]
        assert unknown in ([], ["linux.resources.oomScoreAdj"])
    else:
        with pytest.raises(InvalidParameter):
            validate.parse_config(path.read_bytes())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"process": {}}, "config.json: process.cwd: is missing"),
        ({"process": {"cwd": 5}}, "process.cwd: is not of type string"),
        ({"root": []}, "root: is not of type object"),
        ({"linux": {"resources": {"pids": {"limit": "5"}}}}, "linux.resources.pids.limit: is not"),
        ({"linux": {"resources": {"pids": {"limit": True}}}}, "linux.resources.pids.limit: is not"),
        ({"linux": {"namespaces": [{"type": "x"}]}}, r"linux.namespaces\[0\].type: 'x' is not one"),
        ({"linux": {"devices": [{"type": "q", "path": "/d"}]}}, r"devices\[0\].type: 'q' does not"),
        (
            {"linux": {"resources": {"cpu": {"shares": -1}}}},
            "linux.resources.cpu.shares: -1 is below 0",
        ),
        (
            {"linux": {"resources": {"blockIO": {"weightDevice": [{"major": 8}]}}}},
            r"weightDevice\[0\].minor: is missing",
        ),
        ({"linux": {"sysctl": {"a": 1}}}, "linux.sysctl.a: is not of type string"),
        ({"hooks": {"poststop": [{"path": "/x", "timeout": 0}]}}, r"poststop\[0\].timeout: 0 is"),
        ({"hostname": "a\0b"}, "hostname: contains a NUL"),
        ({"ociVersion": "2.0.0"}, "unsupported version '2.0.0'"),
        ({"ociVersion": None}, "ociVersion: is missing"),
    ],
)
def test_errors_name_the_place(parts: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        check(**parts)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_no_document(text: bytes) -> None:
    with pytest.raises(InvalidParameter, match=r"config\.json: "):
        validate.parse_config(text)


def test_nulls_are_absent_and_unknown_properties_are_told() -> None:
    assert check(hooks=None, linux={"resources": None, "newThing": {"x": 1}}, other=1) == [
        "linux.newThing",
        "other",
    ]
    spec, _ = validate.parse_config(json.dumps({**MINIMAL, "linux": {"sysctl": None}}).encode())
    assert spec["linux"] == {}


def test_process_document() -> None:
    process, unknown = validate.parse_process(b'{"cwd": "/", "args": ["a"], "b": null}')
    assert process == {"cwd": "/", "args": ["a"]}
    assert unknown == ["process.b"]
    with pytest.raises(InvalidParameter, match=r"process\.json: process\.cwd: is missing"):
        validate.parse_process(b"{}")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_mutations_of_an_example_are_accepted_or_refused(data: st.DataObject) -> None:
    document = json.loads((SCHEMA / "test/config/good/spec-example.json").read_text())
    node = document
    while True:
        keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or data.draw(st.booleans()):
            node[key] = data.draw(json_values)
            break
        node = node[key]
    with contextlib.suppress(InvalidParameter):
        validate.parse_config(json.dumps(document).encode())
