"""Listings: rows of named fields, shown as a table, as JSON, raw, or by a template.

``--format`` takes ``table`` (the default), ``table TEMPLATE``, ``raw``, ``json``, or ``TEMPLATE``.
The default table needs no template engine, which keeps ``ps`` quick.
"""

from __future__ import annotations

from typing import NamedTuple

from sampan.cli.fault import CliError
from sampan.cli.table import align

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sampan.cli.gotemplate.values import Value
    from sampan.client.document import Document

FORMAT_HELP = (
    "Format output using a custom template:\n"
    "'table':            Print output in table format with column headers (default)\n"
    "'table TEMPLATE':   Print output in table format using the given Go template\n"
    "'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template.\n"
    "Refer to https://docs.docker.com/go/formatting/ for more information about formatting "
    "output with templates"
)
INSPECT_FORMAT_HELP = (
    "Format output using a custom template:\n"
    "'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template.\n"
    "Refer to https://docs.docker.com/go/formatting/ for more information about formatting "
    "output with templates"
)


class Column(NamedTuple):
    """One field of a row: the table's heading and how it is made."""

    heading: str
    value: Callable[[Document], str]


class Listing(NamedTuple):
    """A kind of listing. ``type_name`` is Go's, for messages."""

    type_name: str
    columns: Mapping[str, Column]
    #: The fields of the default table.
    table: tuple[str, ...]
    #: ``(label, field)`` of the raw format.
    raw: tuple[tuple[str, str], ...] = ()
    #: Methods with arguments, such as ``.Label "key"``.
    methods: Mapping[str, Callable[[Document, str], str]] = {}
    #: Fields that are not strings in JSON.
    typed: Mapping[str, Callable[[Document], Value]] = {}
    #: What is said before a template's error: of its syntax, of its execution.
    complaints: tuple[str, str] = ("template parsing error", "template parsing error")

    def render(self, rows: Sequence[Document], form: str) -> str:
        """The listing of ``rows`` in a format. Raises :class:`CliError`."""
        if form in ("", "table"):
            return self._plain_table(rows, self.table)
        if form == "raw" and self.raw:
            return "".join(self._raw_row(row) + "\n" for row in rows)
        if form == "json":
            form = "{{json .}}"
        if form.startswith("table "):
            return self._template(rows, form.removeprefix("table").strip(), heading=True)
        return self._template(rows, form, heading=False)

    def quiet(self, rows: Iterable[Document], field: str) -> str:
        """One field a line."""
        return "".join(self.columns[field].value(row) + "\n" for row in rows)

    def records(self, rows: Sequence[Document]) -> list[Value]:
        """The rows as values of a template."""
        from sampan.cli.rows import Row

        return [Row(self, row) for row in rows]

    def uses(self, form: str, field: str) -> bool:
        """Whether a template in ``form`` looks at a field (or at all of them, by ``json .``)."""
        return f".{field}" in form or ("json" in form and "{{" in form)

    def _plain_table(self, rows: Sequence[Document], fields: tuple[str, ...]) -> str:
        columns = [self.columns[field] for field in fields]
        lines = ["\t".join(column.heading for column in columns)]
        lines += ["\t".join(column.value(row) for column in columns) for row in rows]
        return align("\n".join(lines)) + "\n"

    def _raw_row(self, row: Document) -> str:
        pairs = ((label, self.columns[field].value(row)) for label, field in self.raw)
        return "".join(f"{label}: {value}".rstrip(" ") + "\n" for label, value in pairs)

    def _template(self, rows: Sequence[Document], source: str, *, heading: bool) -> str:
        from sampan.cli.gotemplate import Template, TemplateError
        from sampan.cli.rows import HEADING_FUNCTIONS, Row

        source = source.replace("\\t", "\t").replace("\\n", "\n")
        try:
            template = Template.parse(source)
        except TemplateError as error:
            raise CliError(f"{self.complaints[0]}: {error}") from error
        try:
            lines = [template.execute(Row(self, row)) for row in rows]
            if heading:
                names: Value = {name: column.heading for name, column in self.columns.items()}
                lines.insert(0, template.execute(names, functions=HEADING_FUNCTIONS))
        except TemplateError as error:
            raise CliError(f"{self.complaints[1]}: {error}") from error
        text = "".join(line + "\n" for line in lines)
        return align(text) if heading else text
