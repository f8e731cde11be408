"""Creating a container: pull what is missing, write the id file, tell the warnings."""

from __future__ import annotations

import os
import re

from sampan.cli.container_spec import Spec, container_spec
from sampan.cli.fault import CliError
from sampan.cli.reference import parse_reference
from sampan.cli.terminal import size
from sampan.client.document import as_table, table, text, texts
from sampan.client.failure import DaemonNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session

#: References that are surely right. The whole grammar costs more start-up time than the rest of
#: a run, so it is only asked about the others.
_PART = r"[a-z0-9]+(?:[._-][a-z0-9]+)*"
_PLAIN = re.compile(rf"{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?", re.ASCII)
_PULL = ("always", "missing", "never")


class IdFile:
    """The file of ``--cidfile``: must not exist before, and is removed if nothing is created."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._written = False

    def __enter__(self) -> IdFile:
        if self._path:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                self._descriptor = os.open(self._path, flags, 0o644)
            except FileExistsError:
                raise CliError(
                    "container ID file found, make sure the other container isn't running or "
                    f"delete {self._path}"
                ) from None
            except OSError as error:
                message = f"failed to create the container ID file: {error.strerror}"
                raise CliError(message) from error
        return self

    def write(self, identity: str) -> None:
        """Put the id into the file."""
        if self._descriptor >= 0:
            os.write(self._descriptor, identity.encode())
            self._written = True

    def __exit__(self, *_exception: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            if not self._written:
                os.unlink(self._path)


def spec_of(session: Session, arguments: Arguments) -> Spec:
    """The container of the flags, with what the client configuration and terminal add."""
    if arguments.text("pull") not in _PULL:
        raise CliError(
            f"invalid pull option: '{arguments.text('pull')}': must be one of \"always\", "
            '"missing" or "never"'
        )
    spec = container_spec(arguments, session.environment)
    proxies = _proxy_variables(session)
    own = [str(entry) for entry in _list(spec.config.get("Env"))]
    present = {entry.partition("=")[0] for entry in own}
    added = [f"{name}={value}" for name, value in proxies.items() if name not in present]
    spec.config["Env"] = [*own, *added]
    rows, columns = size(1)
    if spec.config.get("Tty") and rows:
        spec.host["ConsoleSize"] = [rows, columns]
    if arguments.flag("use-api-socket"):
        _give_api_socket(session, spec)
    return spec


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _give_api_socket(session: Session, spec: Spec) -> None:
    from sampan.cli.daemon import target

    endpoint = target(session).endpoint
    if endpoint.scheme != "unix":
        raise CliError("flag --use-api-socket can't be used with a remote daemon")
    mounts = _list(spec.host.get("Mounts"))
    socket = {
        "Type": "bind",
        "Source": endpoint.address,
        "Target": "/var/run/docker.sock",
    }
    spec.host["Mounts"] = [*mounts, socket]  # type: ignore[list-item]


def _proxy_variables(session: Session) -> dict[str, str]:
    """Proxy settings of ``config.json`` for this daemon, as variables in both cases."""

    proxies = session.config.table("proxies")
    if not proxies:
        return {}
    host = session.client.endpoint.url
    chosen = table(proxies, host) or table(proxies, "default")
    variables: dict[str, str] = {}
    for key, name in (
        ("httpProxy", "HTTP_PROXY"),
        ("httpsProxy", "HTTPS_PROXY"),
        ("noProxy", "NO_PROXY"),
        ("ftpProxy", "FTP_PROXY"),
        ("allProxy", "ALL_PROXY"),
    ):
        value = text(chosen, key)
        if value:
            variables |= {name: value, name.lower(): value}
    return variables


def create(session: Session, arguments: Arguments, spec: Spec) -> str:
    """Create the container and return its id.

    Raises :class:`CliError` and the daemon's errors.
    """
    name = arguments.text("name")
    image = arguments.positional[0]
    if not arguments.flag("rootfs"):
        parse_any(image)
    with IdFile(arguments.text("cidfile")) as file:
        if arguments.flag("replace"):
            _replace(session, name)
        if arguments.flag("rootfs"):
            identity = _create_on_root(session, arguments, spec, image, name)
        else:
            identity = _create_pulling(session, arguments, spec, image, name)
        file.write(identity)
    return identity


def parse_any(image: str) -> None:
    """Refuse what is neither a reference nor an id."""
    if len(image) == 64 and set(image) <= set("0123456789abcdef"):
        return
    if not _PLAIN.fullmatch(image):
        parse_reference(image)


def _replace(session: Session, name: str) -> None:
    if not name:
        raise CliError("cannot replace a container without --name")
    try:
        session.client.delete(f"/containers/{name}", {"force": True, "v": True})
    except DaemonNotFound:
        return  # nothing there to replace


def _create_pulling(
    session: Session, arguments: Arguments, spec: Spec, image: str, name: str
) -> str:
    platform = arguments.text("platform") or session.environment.get("DOCKER_DEFAULT_PLATFORM", "")
    query = {"name": name, "platform": platform}
    quiet = arguments.flag("quiet")
    if arguments.text("pull") == "always":
        _pull(session, image, platform, quiet=quiet)
    try:
        answer = as_table(session.client.post("/containers/create", query, spec.body()))
    except DaemonNotFound as error:
        if arguments.text("pull") != "missing" or arguments.flag("rootfs"):
            raise
        if not _missing_image(error.message):
            raise
        if not quiet:
            shown = parse_reference(image).with_default_tag().familiar
            session.warn(f"Unable to find image '{shown}' locally")
        _pull(session, image, platform, quiet=quiet)
        answer = as_table(session.client.post("/containers/create", query, spec.body()))
    for warning in texts(answer, "Warnings"):
        session.warn(f"WARNING: {warning}")
    return text(answer, "Id")


def _create_on_root(
    session: Session, arguments: Arguments, spec: Spec, directory: str, name: str
) -> str:
    """A container on a directory; the engine removes the image made of it with the container."""
    image = _import_root(session, directory)
    spec.config["Image"] = image
    spec.host["Annotations"] = {**table(spec.host, "Annotations"), "sampan.rootfs": "true"}
    try:
        return _create_pulling(session, arguments, spec, image, name)
    except BaseException:
        session.client.delete(f"/images/{image}")
        raise


def _import_root(session: Session, directory: str) -> str:
    """A directory of this machine as an untagged image; the container works on a copy of it."""
    from sampan.client.tarstream import pack, walk

    if not os.path.isdir(directory):
        raise CliError(f"--rootfs: {directory} is not a directory")
    query = {"fromSrc": "-", "message": f"rootfs {os.path.abspath(directory)}"}
    headers = {"Content-Type": "application/x-tar"}
    body = pack(walk(directory, ""))
    identity = ""
    for record in session.client.stream("POST", "/images/create", query, body, headers):
        message = text(record, "error")
        if message:
            raise CliError(message)
        identity = text(record, "status") or identity
    return identity


def _missing_image(message: str) -> bool:
    """Whether a 404 to a create is about the image (it may be a network or a volume driver).

    The API has no other sign than its sentence.
    """
    return "image" in message.lower()


def _pull(session: Session, image: str, platform: str, *, quiet: bool) -> None:
    from sampan.cli.transfer import pull

    pull(session, image, platform=platform, quiet=quiet, descriptor=2)
