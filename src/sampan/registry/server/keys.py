"""The layout of the registry's store: every key there is (pure).

::

    blobs/sha256/ab/<hex>                          bytes of a blob or manifest, one copy for all
    leases/sha256/<hex>                            touched when a repository takes a blob over
    condemned/sha256/<hex>/<collection>            the collector is about to delete this blob
    catalog/<repository>                           there is a repository of this name (/ as !)
    repositories/<repository>/_blobs/sha256/<hex>      the repository holds this blob
    repositories/<repository>/_manifests/sha256/<hex>  ... this manifest; content: its media type
    repositories/<repository>/_tags/<tag>              content: the digest
    repositories/<repository>/_referrers/sha256/<hex of subject>/sha256-<hex>  a descriptor
    sessions/<upload id>                           an upload's repository and progress

Words beginning with ``_`` cannot be components of repository names, so no two keys collide.
"""

from __future__ import annotations

from sampan.model.digest import Digest

CATALOG = "catalog/"
BLOBS = "blobs/"
SESSIONS = "sessions/"


def blob(digest: Digest) -> str:
    """The bytes of a blob or manifest."""
    return f"blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def blob_digest(key: str) -> Digest:
    """The digest in a :func:`blob` key."""
    _, algorithm, _, encoded = key.split("/")
    return Digest(algorithm, encoded)


def lease(digest: Digest) -> str:
    """Touched whenever some repository newly takes a blob over."""
    return f"leases/{digest.algorithm}/{digest.hex}"


def condemned(digest: Digest, collection: str = "") -> str:
    """The mark of one collection, or the prefix of all."""
    return f"condemned/{digest.algorithm}/{digest.hex}/{collection}"


def catalog(repository: str) -> str:
    """The mark that a repository exists."""
    return CATALOG + repository.replace("/", "!")


def catalog_name(key: str) -> str:
    """The repository in a :func:`catalog` key."""
    return key.removeprefix(CATALOG).replace("!", "/")


def links(repository: str) -> str:
    """Prefix of a repository's blobs."""
    return f"repositories/{repository}/_blobs/"


def link(repository: str, digest: Digest) -> str:
    """That a repository holds a blob."""
    return f"{links(repository)}{digest.algorithm}/{digest.hex}"


def manifests(repository: str) -> str:
    """Prefix of a repository's manifests."""
    return f"repositories/{repository}/_manifests/"


def manifest(repository: str, digest: Digest) -> str:
    """A repository's manifest; the content is its media type."""
    return f"{manifests(repository)}{digest.algorithm}/{digest.hex}"


def linked_digest(key: str) -> Digest:
    """The digest in a :func:`link` or :func:`manifest` key."""
    _, algorithm, encoded = key.rsplit("/", 2)
    return Digest(algorithm, encoded)


def tags(repository: str) -> str:
    """Prefix of a repository's tags."""
    return f"repositories/{repository}/_tags/"


def tag(repository: str, name: str) -> str:
    """A tag; the content is the digest it points to."""
    return tags(repository) + name


def referrers(repository: str, subject: Digest) -> str:
    """Prefix of the descriptors of manifests with this subject."""
    return f"repositories/{repository}/_referrers/{subject.algorithm}/{subject.hex}/"


def referrer(repository: str, subject: Digest, manifest: Digest) -> str:
    """One referrer; the content is its descriptor."""
    return f"{referrers(repository, subject)}{manifest.algorithm}-{manifest.hex}"


def session(upload: str) -> str:
    """An upload session."""
    return SESSIONS + upload
