"""The key sequence that leaves a container running and ends the attachment.

sequence ::= key { "," key }
key      ::= one character | "ctrl-" ( "a".."z" | "@" | "[" | "\\" | "]" | "^" | "_" )
"""

from __future__ import annotations

DEFAULT = "ctrl-p,ctrl-q"


def parse_keys(text: str) -> bytes:
    """The bytes a sequence stands for. Raises ``ValueError``."""
    keys = bytearray()
    for name in text.split(","):
        if len(name) == 1:
            keys += name.encode()
            continue
        letter = name.removeprefix("ctrl-").lower()
        if not name.startswith("ctrl-") or len(letter) != 1:
            raise ValueError(f"Unknown character: '{name}'")
        code = ord(letter.upper()) ^ 0x40
        if not (letter.isalpha() or letter in "@[\\]^_") or code > 0x1F:
            raise ValueError(f"Unknown character: '{name}'")
        keys.append(code)
    return bytes(keys)


class KeyFilter:
    """Looks for the sequence in typed bytes; holds back what may be its beginning."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """The bytes to pass on, and whether the sequence was completed."""
        passed = bytearray()
        for byte in data:
            while self._matched and byte != self._keys[self._matched]:
                # Not the sequence after all: what was held back was typed text.
                passed += self._keys[: self._matched]
                self._matched = 0
            if self._keys and byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(passed), True
            else:
                passed.append(byte)
        return bytes(passed), False
