"""Image references as the command line checks them before it asks the daemon."""

from __future__ import annotations

from sampan.cli.fault import CliError
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.model.reference import Reference


def parse_reference(name: str) -> Reference:
    """The reference ``name`` is. Raises :class:`CliError` with Docker's wording."""
    from sampan.model.reference import Reference

    try:
        return Reference.parse(name)
    except InvalidParameter as error:
        message = error.message
        if "must be lowercase" in message:
            path = name.partition("@")[0]
            path = path.rpartition(":")[0] if ":" in path.rpartition("/")[2] else path
            path = path if "/" in path else f"library/{path}"
            message = f"invalid reference format: repository name ({path}) must be lowercase"
        elif message.startswith("invalid reference format"):
            message = "invalid reference format"
        raise CliError(message) from error
