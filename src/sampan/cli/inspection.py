"""``inspect`` and other commands that print an API object: JSON, or a template on it."""

from __future__ import annotations

import json

from sampan.cli.fault import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.gotemplate import Template
    from sampan.cli.gotemplate.values import Value
    from sampan.cli.session import Session
    from sampan.client.document import Document, Json

#: The exit status for a ``--format`` that does not parse (EX_USAGE), as in Docker.
BAD_TEMPLATE = 64


class TemplateFault(CliError):
    """A template does not fit its object."""


def indented(value: Json, indent: int | str = 4) -> str:
    """JSON over several lines, as Docker prints objects."""
    return json.dumps(value, indent=indent, ensure_ascii=False)


def compact(value: Json) -> str:
    """JSON on one line."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def parse(form: str, name: str = "") -> Template:
    """A ``--format`` template; ``json`` is one that prints everything.

    Raises :class:`CliError` with status 64.
    """
    from sampan.cli.gotemplate import Template, TemplateError

    try:
        return Template.parse("{{json .}}" if form == "json" else form, name)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}", BAD_TEMPLATE) from error


def execute(template: Template, document: Document, go_type: str = "") -> str:
    """A template on one object.

    As in Docker, the object is first seen as its Go type and then, if that fails, as the JSON it
    is. Raises :class:`TemplateFault`.
    """
    from sampan.cli.gotemplate import TemplateError
    from sampan.cli.gotypes import plain, typed

    if go_type:
        try:
            return template.execute(typed(go_type, document))
        except TemplateError:
            pass  # a field only the JSON has: try that
    try:
        return template.execute(plain(document), missing_key_error=True)
    except TemplateError as error:
        raise TemplateFault(f"template parsing error: {error}") from error


def print_one(session: Session, form: str, value: Value, name: str = "") -> None:
    """A template on a single typed value (``version``, ``info``). Raises :class:`CliError`."""
    from sampan.cli.gotemplate import TemplateError

    template = parse(form, name)
    try:
        session.line(template.execute(value))
    except TemplateError as error:
        session.line("")
        raise TemplateFault(str(error)) from error


def show(
    session: Session,
    names: list[str],
    form: str,
    fetch: Callable[[str], tuple[Document, str]],
    *,
    escape: bool = False,
) -> int:
    """Print each object named; ``fetch`` returns it and its Go type.

    ``escape``: write the characters special in HTML as escapes. Failures come last and make the
    status 1.
    """
    from sampan.client.failure import DaemonError

    template = parse(form) if form not in ("", "json") else None
    found: list[Json] = []
    lines: list[str] = []
    failures: list[str] = []
    for name in names:
        try:
            document, go_type = fetch(name)
            if template is None:
                found.append(document)
            else:
                lines.append(execute(template, document, go_type))
        except DaemonError as error:
            failures.append(f"Error response from daemon: {error.message}")
        except CliError as error:
            failures.append(error.message)
    if template is not None:
        session.out("".join(line + "\n" for line in lines) or "\n")
    else:
        text = indented(found) if not form else compact(found)
        if escape:
            from sampan.cli.gotemplate.values import escape_html

            text = escape_html(text)
        session.line(text)
    if failures:
        session.warn("\n".join(failures))
    return 1 if failures else 0
