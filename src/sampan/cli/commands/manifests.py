"""``manifest create``, ``annotate``, ``inspect``, ``push``, ``rm``: lists of manifests.

These talk to registries themselves, with sampan's registry client; no daemon is needed.
"""

from __future__ import annotations

import asyncio
import json

from sampan.cli.command import SOME, TWO, Arity, Command, Flag
from sampan.cli.credentials import Store, server_key
from sampan.cli.fault import CliError
from sampan.cli.inspection import indented
from sampan.cli.kinds import BOOL, STRING, STRINGS
from sampan.cli.manifest_store import Entry, ManifestStore, annotate
from sampan.cli.reference import parse_reference
from sampan.client.document import as_table, table, tables, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document
    from sampan.model.reference import Reference
    from sampan.registry import Manifest, Registry, Repository
    from sampan.registry.credentials import Credentials

_LIST_TYPE = "application/vnd.docker.distribution.manifest.list.v2+json"
#: How docker sets out a list; everything else has a tab a level.
_LIST_INDENT = 3
#: The order of a descriptor's members beside a manifest.
_ORDER = ("mediaType", "digest", "size", "platform")
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_LIMIT = 4 << 20


def _store(session: Session) -> ManifestStore:
    return ManifestStore(session.config.directory)


def _registry(reference: Reference, *, insecure: bool) -> Registry:
    from sampan.registry import Registries, Registry, Settings

    allowed = [reference.domain] if insecure else []
    registries = Registries().with_daemon_options(insecure=allowed)
    return Registry(Settings(registries=registries))


def _credentials(session: Session, reference: Reference) -> Credentials:
    from sampan.registry.credentials import Credentials

    known = Store(session.config).get(server_key(reference.domain))
    if known is None:
        return Credentials()
    return Credentials(
        username=known.username,
        password=known.password,
        identity_token=known.identity_token,
        registry_token=known.registry_token,
    )


async def _fetch(session: Session, name: str, *, insecure: bool) -> tuple[Manifest, Document]:
    """A manifest and, for an image, the platform its configuration names."""
    reference = parse_reference(name).with_default_tag()
    async with (
        _registry(reference, insecure=insecure) as registry,
        registry.origin(reference, _credentials(session, reference)) as repository,
    ):
        manifest = await repository.manifest(reference.digest or reference.tag)
        if manifest.is_index or manifest.config is None:
            return manifest, {}
        return manifest, await _platform(repository, manifest)


async def _platform(repository: Repository, manifest: Manifest) -> Document:
    assert manifest.config is not None  # the caller looked
    config = as_table(json.loads(await repository.read_blob(manifest.config, _CONFIG_LIMIT)))
    platform: Document = {
        "architecture": text(config, "architecture"),
        "os": text(config, "os"),
    }
    for key in ("variant", "os.version"):
        if text(config, key):
            platform[key] = text(config, key)
    return platform


def _entry(name: str, manifest: Manifest, platform: Document) -> Entry:
    size = len(manifest.raw)
    return Entry(name, manifest.media_type, str(manifest.digest), size, platform, manifest.raw)


def _create(session: Session, arguments: Arguments) -> None:
    target, *members = arguments.positional
    name = str(parse_reference(target).with_default_tag())
    store = _store(session)
    if store.exists(name) and not arguments.flag("amend"):
        raise CliError("refusing to amend an existing manifest list with no --amend flag")
    for member in members:
        full = str(parse_reference(member).with_default_tag())
        fetched = asyncio.run(_fetch(session, member, insecure=arguments.flag("insecure")))
        manifest, platform = fetched
        if manifest.is_index:
            raise CliError(f"{member} is a manifest list")
        store.put(name, _entry(full, manifest, platform))
    session.line(f"Created manifest list {name}")


def _annotate(session: Session, arguments: Arguments) -> None:
    target, member = arguments.positional
    name = str(parse_reference(target).with_default_tag())
    full = str(parse_reference(member).with_default_tag())
    store = _store(session)
    store.entries(name)
    entry = store.get(name, full)
    changes = {
        "architecture": arguments.text("arch"),
        "os": arguments.text("os"),
        "variant": arguments.text("variant"),
        "os.version": arguments.text("os-version"),
    }
    platform = annotate(entry.platform, changes, arguments.texts("os-features"))
    store.put(name, entry._replace(platform=platform))


def _document(entries: list[Entry]) -> Document:
    """The manifest list the entries make: an OCI index when one of them is an OCI manifest."""
    oci = any(entry.media_type == _OCI_MANIFEST for entry in entries)
    return {
        "schemaVersion": 2,
        "mediaType": _INDEX_TYPE if oci else _LIST_TYPE,
        "manifests": [entry.descriptor() for entry in entries],
    }


def _inspect(session: Session, arguments: Arguments) -> None:
    *lists, member = arguments.positional
    full = str(parse_reference(member).with_default_tag())
    store = _store(session)
    verbose = arguments.flag("verbose")
    if lists:
        name = str(parse_reference(lists[0]).with_default_tag())
        store.entries(name)
        _print(session, store.get(name, full), verbose=verbose)
        return
    if store.exists(full):
        entries = store.entries(full)
        if verbose:
            session.line(indented([_verbose(entry) for entry in entries], "\t"))
        else:
            session.line(indented(_document(entries), _LIST_INDENT))
        return
    insecure = arguments.flag("insecure")
    manifest, platform = asyncio.run(_fetch(session, member, insecure=insecure))
    if not verbose or not manifest.is_index:
        _print(session, _entry(full, manifest, platform), verbose=verbose)
        return
    shown = _expanded(session, member, manifest, insecure=insecure)
    session.line(indented([*shown], "\t"))


def _expanded(session: Session, name: str, index: Manifest, *, insecure: bool) -> list[Document]:
    """The manifests an index lists, with what is in each."""
    reference = parse_reference(name)
    shown = []
    for descriptor in tables(as_table(json.loads(index.raw)), "manifests"):
        member = f"{reference.name}@{text(descriptor, 'digest')}"
        manifest, platform = asyncio.run(_fetch(session, member, insecure=insecure))
        platform = table(descriptor, "platform") or platform
        shown.append(_verbose(_entry(member, manifest, platform)))
    return shown


def _verbose(entry: Entry) -> Document:
    descriptor = entry.descriptor()
    kind = "OCIManifest" if entry.media_type == _OCI_MANIFEST else "SchemaV2Manifest"
    return {
        "Ref": entry.reference,
        "Descriptor": {key: descriptor[key] for key in _ORDER if key in descriptor},
        "Raw": _base64(entry.raw),
        kind: as_table(json.loads(entry.raw)),
    }


def _base64(raw: bytes) -> str:
    import base64

    return base64.b64encode(raw).decode()


def _print(session: Session, entry: Entry, *, verbose: bool) -> None:
    if verbose:
        session.line(indented(_verbose(entry), "\t"))
        return
    document = as_table(json.loads(entry.raw))
    session.line(indented(document, _LIST_INDENT if "manifests" in document else "\t"))


def _push(session: Session, arguments: Arguments) -> None:
    name = str(parse_reference(arguments.positional[0]).with_default_tag())
    store = _store(session)
    entries = store.entries(name)
    for entry in entries:
        if not text(entry.platform, "os") or not text(entry.platform, "architecture"):
            raise CliError(
                f"manifest {entry.reference} must have an OS and Architecture to be pushed to a "
                "registry"
            )
    insecure = arguments.flag("insecure")
    digest = asyncio.run(_push_list(session, name, entries, insecure=insecure))
    session.line(digest)
    if arguments.flag("purge"):
        store.remove(name)


async def _push_list(session: Session, name: str, entries: list[Entry], *, insecure: bool) -> str:
    from sampan.registry.manifest import parse

    target = parse_reference(name)
    document = _document(entries)
    index = parse(json.dumps(document, indent=_LIST_INDENT).encode(), text(document, "mediaType"))
    sources = {parse_reference(entry.reference).path for entry in entries} - {target.path}
    also = " ".join(f"repository:{path}:pull" for path in sorted(sources))
    async with _registry(target, insecure=insecure) as registry:
        endpoint = registry.settings.registries.push_endpoint(target)
        credentials = _credentials(session, target)
        async with registry.connect(
            endpoint, credentials, actions="pull,push", also=also
        ) as repository:
            for entry in entries:
                await _push_member(session, repository, target, entry)
            await repository.put_manifest(index, target.tag)
    return str(index.digest)


async def _push_member(
    session: Session, repository: Repository, target: Reference, entry: Entry
) -> None:
    """Make a manifest and its blobs part of the target repository."""
    from sampan.registry.http import Request
    from sampan.registry.manifest import parse

    source = parse_reference(entry.reference)
    if source.domain != target.domain:
        raise CliError(
            "cannot use source images from a different registry than the target image: "
            f"{source.domain} != {target.domain}"
        )
    manifest = parse(entry.raw, entry.media_type)
    if source.path != target.path:
        for blob in manifest.blobs:
            url = repository.url(f"blobs/uploads/?mount={blob.digest}&from={source.path}")
            reply = await repository.send(Request(method="POST", url=url))
            if reply.status != 201:
                raise CliError(f"cannot mount {blob.digest} from {source.path}: {reply.status}")
    await repository.put_manifest(manifest)
    session.line(f"Pushed ref {target.name}@{manifest.digest} with digest: {manifest.digest}")


def _rm(session: Session, arguments: Arguments) -> int:
    failures = []
    for target in arguments.positional:
        try:
            _store(session).remove(str(parse_reference(target).with_default_tag()))
        except CliError as error:
            failures.append(error.message)
    if failures:
        session.warn("\n".join(failures))
    return 1 if failures else 0


_INSECURE = Flag("insecure", "", BOOL, "Allow communication with an insecure registry")
CREATE = Command(
    "MANIFEST_LIST MANIFEST [MANIFEST...]",
    (Flag("amend", "a", BOOL, "Amend an existing manifest list"), _INSECURE),
    Arity(2, -1),
    _create,
)
ANNOTATE = Command(
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    (
        Flag("arch", "", STRING, "Set architecture"),
        Flag("os", "", STRING, "Set operating system"),
        Flag("os-features", "", STRINGS, "Set operating system feature"),
        Flag("os-version", "", STRING, "Set operating system version"),
        Flag("variant", "", STRING, "Set architecture variant"),
    ),
    TWO,
    _annotate,
)
INSPECT = Command(
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    (
        _INSECURE,
        Flag("verbose", "v", BOOL, "Output additional info including layers and platform"),
    ),
    Arity(1, 2),
    _inspect,
)
PUSH = Command(
    "[OPTIONS] MANIFEST_LIST",
    (
        Flag("insecure", "", BOOL, "Allow push to an insecure registry"),
        Flag("purge", "p", BOOL, "Remove the local manifest list after push"),
    ),
    Arity(1, 1),
    _push,
)
RM = Command("MANIFEST_LIST [MANIFEST_LIST...]", (), SOME, _rm)
