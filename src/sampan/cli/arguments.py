"""The parsed flags and positional arguments of one command."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Arguments:
    """Values by flag name, typed on the way out.

    A getter of the wrong type is a mistake in a command's table, hence ``TypeError``.
    """

    __slots__ = ("_values", "changed", "positional")

    def __init__(
        self, values: Mapping[str, object], changed: frozenset[str], positional: list[str]
    ) -> None:
        self._values = values
        #: The flags that were written, even with their default value.
        self.changed = changed
        self.positional = positional

    def value(self, name: str) -> object:
        """The value whatever its type; None when the flag was not given and has no default."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        """A string flag."""
        value = self._values.get(name, "")
        if not isinstance(value, str):
            raise TypeError(f"--{name} is not a string")
        return value

    def flag(self, name: str) -> bool:
        """A boolean flag."""
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise TypeError(f"--{name} is not a boolean")
        return value

    def number(self, name: str) -> int:
        """An integer flag: a count, size in bytes, duration in nanoseconds."""
        value = self._values.get(name, 0)
        if not isinstance(value, int):
            raise TypeError(f"--{name} is not a number")
        return value

    def optional_number(self, name: str) -> int | None:
        """An integer flag, None when it was not given."""
        return self.number(name) if name in self.changed else None

    def values(self, name: str) -> list[object]:
        """Every value of a repeatable flag, in order."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise TypeError(f"--{name} is not a list")
        return list(value)

    def texts(self, name: str) -> list[str]:
        """Every value of a repeatable string flag."""
        return [str(value) for value in self.values(name)]

    def pairs(self, name: str) -> dict[str, str]:
        """Every ``key=value`` of a map flag; the last of equal keys wins."""
        pairs = {}
        for value in self.values(name):
            if not isinstance(value, tuple):
                raise TypeError(f"--{name} is not a map")
            key, item = value
            pairs[str(key)] = str(item)
        return pairs

    def filters(self, name: str = "filter") -> dict[str, list[str]]:
        """Filter flags as the API wants them: values by name, doubles removed."""
        filters: dict[str, list[str]] = {}
        for value in self.values(name):
            if not isinstance(value, tuple):
                raise TypeError(f"--{name} is not a filter")
            key, item = value
            chosen = filters.setdefault(str(key), [])
            if str(item) not in chosen:
                chosen.append(str(item))
        return filters
