"""Go's text/template, as ``--format`` uses it.

``Template.parse(text)`` then ``execute(data)``. The whole language: pipelines, variables, ``if``,
``range`` (with ``else``, ``break``, ``continue``), ``with``, ``define``, ``template``, ``block``,
trim markers, comments, Go's functions and Docker's. Values are plain JSON values and
:class:`~sampan.cli.gotemplate.values.Record`, which stands for a Go struct. Errors have Go's
wording, with line and column.
"""

from __future__ import annotations

from sampan.cli.gotemplate.fault import TemplateError
from sampan.cli.gotemplate.template import Template
from sampan.cli.gotemplate.values import Record, Struct

__all__ = ["Record", "Struct", "Template", "TemplateError"]
