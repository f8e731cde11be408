"""``os[/arch[/variant]]``."""

from __future__ import annotations

import json


def parse_platform(text: str) -> str:
    """A platform as the API takes it in a query: a JSON object. Raises ``ValueError``."""
    os_name, _slash, rest = text.partition("/")
    architecture, _slash, variant = rest.partition("/")
    parts = {"os": os_name, "architecture": architecture, "variant": variant}
    if not os_name or "/" in variant:
        raise ValueError(f'invalid platform: "{text}" is not formatted as os[/arch[/variant]]')
    return json.dumps({name: part for name, part in parts.items() if part}, separators=(",", ":"))
