"""A row of a listing as a template sees it."""

from __future__ import annotations

from sampan.cli.gotemplate.functions import FUNCTIONS
from sampan.cli.gotemplate.values import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sampan.cli.gotemplate.values import Value
    from sampan.cli.listing import Listing
    from sampan.client.document import Document


class Row(Record):
    """The fields of a row, made when asked for."""

    escapes_html = True

    def __init__(self, listing: Listing, document: Document) -> None:
        self._listing = listing
        self._document = document
        self.type_name = listing.type_name

    def member(self, name: str) -> Value:
        """A field, or a method with one argument. Raises ``KeyError``."""
        method = self._listing.methods.get(name)
        if method is not None:
            return lambda key: method(self._document, str(key))
        typed = self._listing.typed.get(name)
        if typed is not None:
            return typed(self._document)
        return self._listing.columns[name].value(self._document)

    def members(self) -> Iterable[tuple[str, Value]]:
        """Every field, by name, as Docker's JSON has them."""
        names = {*self._listing.columns, *self._listing.typed}
        return [(name, self.member(name)) for name in sorted(names)]


def _first(value: Value, *_arguments: Value) -> Value:
    return value


#: In the heading line, functions that need the row's value leave the heading as it is.
HEADING_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "json": _first,
    "split": _first,
    "join": _first,
    "truncate": _first,
    **{name: FUNCTIONS[name] for name in ("title", "lower", "upper", "pad")},
}
