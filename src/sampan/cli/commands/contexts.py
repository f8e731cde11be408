"""``context create``, ``inspect``, ``ls``, ``rm``, ``show``, ``update``, ``use``."""

from __future__ import annotations

from sampan.cli.command import ANY, NONE, ONE, SOME, Command, Flag
from sampan.cli.context_store import DEFAULT, Context, ContextStore, validate_name
from sampan.cli.daemon import context_name, default_host
from sampan.cli.fault import CliError
from sampan.cli.inspection import show
from sampan.cli.kinds import BOOL, PAIRS, STRING, parse_bool
from sampan.cli.listing import FORMAT_HELP, INSPECT_FORMAT_HELP, Column, Listing
from sampan.client.document import flag, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document, Json

_FILES = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
_IN_MEMORY = "<IN MEMORY>"
_DEFAULT_DESCRIPTION = "Current DOCKER_HOST based configuration"


def store_of(session: Session) -> ContextStore:
    """The contexts of the configuration directory."""
    return ContextStore(session.config.directory)


def default_context(session: Session) -> Context:
    """The context that is made of options and environment."""
    hosts = session.options.hosts
    host = hosts[0] if hosts else session.environment.get("DOCKER_HOST", "")
    return Context(DEFAULT, _DEFAULT_DESCRIPTION, host or default_host(session.environment))


def _get(session: Session, name: str) -> Context:
    return default_context(session) if name == DEFAULT else store_of(session).get(name)


def _shown(row: Document) -> str:
    return text(row, "Name") + (" *" if flag(row, "Current") else "")


_LISTING = Listing(
    type_name="*formatter.clientContextContext",
    columns={
        "Name": Column("NAME", lambda row: text(row, "Name")),
        "Description": Column("DESCRIPTION", lambda row: text(row, "Description")),
        "DockerEndpoint": Column("DOCKER ENDPOINT", lambda row: text(row, "DockerEndpoint")),
        "Error": Column("ERROR", lambda row: text(row, "Error")),
    },
    table=("Name", "Description", "DockerEndpoint", "Error"),
    typed={"Current": lambda row: flag(row, "Current")},
)
_TABLE = _LISTING._replace(columns={**_LISTING.columns, "Name": Column("NAME", _shown)})


def _ls(session: Session, arguments: Arguments) -> None:
    current = context_name(session)
    contexts = [default_context(session), *store_of(session).all()]
    rows: list[Document] = [
        {
            "Name": context.name,
            "Description": context.description,
            "DockerEndpoint": context.host,
            "Current": context.name == current,
            "Error": "",
        }
        for context in contexts
    ]
    if current not in {context.name for context in contexts}:
        message = f'context "{current}": context not found'
        rows.append({"Name": current, "Current": True, "Error": message})
    form = arguments.text("format")
    if arguments.flag("quiet"):
        session.out(_LISTING.quiet(rows, "Name"))
    else:
        session.out((_LISTING if form else _TABLE).render(rows, form))
    variable = session.environment.get("DOCKER_HOST")
    if variable and not session.options.hosts and not session.options.context:
        session.warn(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a "
            "context, either set the global --context flag, or unset DOCKER_HOST environment "
            "variable."
        )


def _endpoint(
    session: Session, settings: dict[str, str], former: Context
) -> tuple[Context, dict[str, bytes] | None]:
    """The context with the settings of ``--docker``, and its new TLS files."""
    for key in settings:
        if key not in ("host", "skip-tls-verify", "from", *_FILES):
            message = f"unable to create docker endpoint config: unrecognized config key: {key}"
            raise CliError(message)
    if "from" in settings:
        source = _get(session, settings["from"])
        tls = store_of(session).tls_material(source)
        return former._replace(host=source.host, skip_tls_verify=source.skip_tls_verify), tls
    tls = {}
    for key, name in _FILES.items():
        if settings.get(key):
            try:
                with open(settings[key], "rb") as file:
                    tls[name] = file.read()
            except OSError as error:
                raise CliError(
                    f"unable to create docker endpoint config: open {settings[key]}: "
                    f"{(error.strerror or '').lower()}"
                ) from error
    skip = settings.get("skip-tls-verify", "false")
    try:
        skipped = parse_bool(skip)
    except ValueError as error:
        raise CliError(f"unable to create docker endpoint config: {error}") from error
    host = settings.get("host", "")
    if host and "://" not in host:
        raise CliError(
            "unable to create docker endpoint config: unable to apply docker endpoint options: "
            f"unable to parse docker host `{host}`"
        )
    return former._replace(host=host, skip_tls_verify=skipped), tls


def _create(session: Session, arguments: Arguments) -> None:
    name = arguments.positional[0]
    store = store_of(session)
    validate_name(name)
    if store.exists(name):
        raise CliError(f'context "{name}" already exists')
    settings = arguments.pairs("docker")
    context = Context(name, arguments.text("description"))
    tls: dict[str, bytes] | None = None
    if arguments.text("from") and settings:
        raise CliError("cannot use --docker flag when --from is set")
    if settings:
        context, tls = _endpoint(session, settings, context)
    else:
        source = _get(session, arguments.text("from") or context_name(session))
        tls = store.tls_material(source)
        described = source.description if source.name != DEFAULT else ""
        context = context._replace(
            host=source.host,
            skip_tls_verify=source.skip_tls_verify,
            description=context.description or described,
        )
    store.save(context, tls)
    session.line(name)
    session.warn(f'Successfully created context "{name}"')


def _update(session: Session, arguments: Arguments) -> None:
    name = arguments.positional[0]
    store = store_of(session)
    context = store.get(name)
    tls = None
    if "description" in arguments.changed:
        context = context._replace(description=arguments.text("description"))
    settings = arguments.pairs("docker")
    if settings:
        context, tls = _endpoint(session, settings, context)
    store.save(context, tls)
    session.line(name)
    session.warn(f'Successfully updated context "{name}"')


def _inspect(session: Session, arguments: Arguments) -> int:
    def fetch(name: str) -> tuple[Document, str]:
        context = _get(session, name)
        material: dict[str, Json] = {}
        if context.tls_files:
            material["docker"] = list(context.tls_files)
        stored = context.name != DEFAULT
        document: Document = {
            "Name": context.name,
            "Metadata": context.document()["Metadata"] if stored else {},
            "Endpoints": context.endpoints(),
            "TLSMaterial": material,
            "Storage": {
                "MetadataPath": context.meta_path or _IN_MEMORY,
                "TLSPath": context.tls_path or _IN_MEMORY,
            },
        }
        return document, ""

    names = arguments.positional or [context_name(session)]
    return show(session, names, arguments.text("format"), fetch, escape=True)


def _rm(session: Session, arguments: Arguments) -> int:
    failures = []
    current = context_name(session)
    for name in arguments.positional:
        try:
            if name == DEFAULT:
                raise CliError('context "default" cannot be removed')
            if not store_of(session).exists(name) and not arguments.flag("force"):
                raise CliError(f'context "{name}" does not exist')
            if name == current:
                if not arguments.flag("force"):
                    message = f'context "{name}" is in use, set -f flag to force remove'
                    raise CliError(message)
                _set_current(session, "")
            if store_of(session).exists(name):
                store_of(session).remove(name)
        except CliError as error:
            failures.append(error.message)
            continue
        session.line(name)
    if failures:
        session.warn("\n".join(failures))
    return 1 if failures else 0


def _set_current(session: Session, name: str) -> None:
    if name:
        session.config.document["currentContext"] = name
    else:
        session.config.document.pop("currentContext", None)
    session.config.save()


def _use(session: Session, arguments: Arguments) -> None:
    name = arguments.positional[0]
    if name != DEFAULT:
        store_of(session).get(name)
    _set_current(session, "" if name == DEFAULT else name)
    session.line(name)
    session.warn(f'Current context is now "{name}"')
    host = session.environment.get("DOCKER_HOST")
    if name != DEFAULT and host:
        session.warn(
            f"Warning: DOCKER_HOST environment variable overrides the active context. To use "
            f'"{name}", either set the global --context flag, or unset DOCKER_HOST environment '
            "variable."
        )


def _show(session: Session, _arguments: Arguments) -> None:
    session.line(context_name(session))


_DESCRIPTION = Flag("description", "", STRING, "Description of the context")
_ENDPOINT = Flag("docker", "", PAIRS, "set the docker endpoint")
CREATE = Command(
    "[OPTIONS] CONTEXT",
    (
        _DESCRIPTION,
        _ENDPOINT,
        Flag("from", "", STRING, "create context from a named context", complete="context"),
    ),
    ONE,
    _create,
)
UPDATE = Command("[OPTIONS] CONTEXT", (_DESCRIPTION, _ENDPOINT), ONE, _update, complete="context")
INSPECT = Command(
    "[OPTIONS] [CONTEXT] [CONTEXT...]",
    (Flag("format", "f", STRING, INSPECT_FORMAT_HELP),),
    ANY,
    _inspect,
    complete="context",
)
LS = Command(
    "[OPTIONS]",
    (
        Flag("format", "", STRING, FORMAT_HELP),
        Flag("quiet", "q", BOOL, "Only show context names"),
    ),
    NONE,
    _ls,
)
RM = Command(
    "CONTEXT [CONTEXT...]",
    (Flag("force", "f", BOOL, "Force the removal of a context in use"),),
    SOME,
    _rm,
    complete="context",
)
USE = Command("CONTEXT", (), ONE, _use, complete="context")
SHOW = Command("", (), NONE, _show)
