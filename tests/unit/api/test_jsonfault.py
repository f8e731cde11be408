"""The words of Go's decoder for JSON that is none (encoding/json, scanner.go)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.api import jsonfault


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unexpected EOF"),
        ('{"a": 1', "unexpected EOF"),
        ("{'a'", "invalid character '\\'' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a": 1 "b"}', "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ("nul!", "invalid character '!' in literal null (expecting 'l')"),
        ('"\n"', "invalid character '\\n' in string literal"),
        ('"\\x"', "invalid character 'x' in string escape code"),
        ('"\\u12g4"', "invalid character 'g' in \\u hexadecimal character escape"),
        ("-", "unexpected EOF"),
        ("-a", "invalid character 'a' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1ex", "invalid character 'x' in exponent of numeric literal"),
        ("{} {}", jsonfault.TRAILING),
        ("[" * 5000, "exceeded max depth"),
    ],
)
def test_faults(text: str, message: str) -> None:
    assert jsonfault.describe(text) == message


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps), st.data())
def test_a_document_cut_short_ends_unexpectedly(text: str, data: st.DataObject) -> None:
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    try:
        json.loads(cut)
    except ValueError:
        assert jsonfault.describe(cut) == "unexpected EOF"
