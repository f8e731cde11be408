"""JSON straight through the standard library's C scanner and encoder.

:func:`json.loads` and :func:`json.dumps` get there by a dozen Python functions, whose every page a
monitor would have to itself as soon as it has called them once (reference counts are written into
the objects). The results are the same.
"""

from __future__ import annotations

import json
from json import encoder
from typing import Any, NoReturn

from sampan.errors import Corrupt


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_make = encoder.c_make_encoder  # type: ignore[attr-defined]
_encode = _make and _make(
    None, _refuse, encoder.encode_basestring_ascii, None, ":", ",", False, False, True
)


def loads(data: bytes) -> Any:
    """The value of a JSON document. Raises :class:`Corrupt`."""
    try:
        value, _ = _scan(data.decode(), 0)
    except (StopIteration, ValueError) as error:
        raise Corrupt("malformed JSON") from error
    return value


def dumps(value: Any) -> bytes:
    """``value`` as compact JSON, in ASCII."""
    if _encode is None:  # an interpreter without the accelerator
        return json.dumps(value, separators=(",", ":")).encode()
    return "".join(_encode(value, 0)).encode()
