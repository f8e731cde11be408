"""``inspect`` and other commands that print an API object: JSON, or a template on it."""

from __future__ import annotations

import json

from sampan.cli.fault import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.session import Session
    from sampan.client.document import Document, Json


def indented(value: Json) -> str:
    """JSON over several lines, as Docker prints objects."""
    return json.dumps(value, indent=4, ensure_ascii=False)


def execute(form: str, document: Document, go_type: str = "") -> str:
    """A template (or ``json``) on one object.

    As in Docker, the object is first seen as its Go type and then, if that fails, as the JSON it
    is. Raises :class:`CliError`.
    """
    if form == "json":
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    from sampan.cli.gotemplate import Template, TemplateError
    from sampan.cli.gotypes import plain, typed

    form = form.replace("\\t", "\t").replace("\\n", "\n") if "{{" not in form else form
    try:
        template = Template.parse(form)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}") from error
    if go_type:
        try:
            return template.execute(typed(go_type, document))
        except TemplateError:
            pass  # a field only the JSON has: try that
    try:
        return template.execute(plain(document), missing_key_error=True)
    except TemplateError as error:
        raise CliError(f"template parsing error: {error}") from error


def show(
    session: Session,
    names: list[str],
    form: str,
    fetch: Callable[[str], tuple[Document, str]],
) -> int:
    """Print each object named; ``fetch`` returns it and its Go type.

    Failures come last and make the status 1.
    """
    from sampan.client.failure import DaemonError

    found: list[Document] = []
    lines: list[str] = []
    failures: list[str] = []
    broken = ""
    for name in names:
        try:
            document, go_type = fetch(name)
            if form:
                lines.append(execute(form, document, go_type))
            else:
                found.append(document)
        except DaemonError as error:
            failures.append(f"Error response from daemon: {error.message}")
        except CliError as error:
            if error.message.startswith("template parsing error"):
                broken = error.message
                break
            failures.append(error.message)
    if form:
        session.out("".join(line + "\n" for line in lines) or "\n")
    else:
        session.line(indented([*found]))
    if broken:
        session.warn(broken)
    elif failures:
        session.warn("\n".join(failures))
    return 1 if failures or broken else 0
