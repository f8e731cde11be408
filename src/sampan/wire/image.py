"""Images, registries and builds, as the Docker Engine API writes them (API v1.55, spec/docker-api).

Every field is optional on the wire; ``None`` means absent. Only the edge decodes these from
untrusted input; msgspec names the offending field.
"""

from __future__ import annotations

import msgspec

from sampan.wire.base import Json, Object
from sampan.wire.container import DriverData, ImageConfig, OCIDescriptor, OCIPlatform


class ImageHistoryResponseItem(Object, kw_only=True, frozen=True, omit_defaults=True):
    """individual image layer information in response to ImageHistory operation."""

    id: str | None = msgspec.field(default=None, name="Id")
    created: int | None = msgspec.field(default=None, name="Created")
    created_by: str | None = msgspec.field(default=None, name="CreatedBy")
    tags: list[str] | None = msgspec.field(default=None, name="Tags")
    size: int | None = msgspec.field(default=None, name="Size")
    comment: str | None = msgspec.field(default=None, name="Comment")


class ImageManifestSummarySize(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Sizes of a manifest, in bytes."""

    total: int | None = msgspec.field(default=None, name="Total")
    content: int | None = msgspec.field(default=None, name="Content")


class SignatureTimestamp(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A verified signed timestamp of an image signature."""

    type: str | None = msgspec.field(default=None, name="Type")
    uri: str | None = msgspec.field(default=None, name="URI")
    timestamp: str | None = msgspec.field(default=None, name="Timestamp")


class SignerIdentity(Object, kw_only=True, frozen=True, omit_defaults=True):
    """SignerIdentity contains information about the signer certificate used to sign the image."""

    certificate_issuer: str | None = msgspec.field(default=None, name="CertificateIssuer")
    subject_alternative_name: str | None = msgspec.field(
        default=None, name="SubjectAlternativeName"
    )
    issuer: str | None = msgspec.field(default=None, name="Issuer")
    build_signer_uri: str | None = msgspec.field(default=None, name="BuildSignerURI")
    build_signer_digest: str | None = msgspec.field(default=None, name="BuildSignerDigest")
    runner_environment: str | None = msgspec.field(default=None, name="RunnerEnvironment")
    source_repository_uri: str | None = msgspec.field(default=None, name="SourceRepositoryURI")
    source_repository_digest: str | None = msgspec.field(
        default=None, name="SourceRepositoryDigest"
    )
    source_repository_ref: str | None = msgspec.field(default=None, name="SourceRepositoryRef")
    source_repository_identifier: str | None = msgspec.field(
        default=None, name="SourceRepositoryIdentifier"
    )
    source_repository_owner_uri: str | None = msgspec.field(
        default=None, name="SourceRepositoryOwnerURI"
    )
    source_repository_owner_identifier: str | None = msgspec.field(
        default=None, name="SourceRepositoryOwnerIdentifier"
    )
    build_config_uri: str | None = msgspec.field(default=None, name="BuildConfigURI")
    build_config_digest: str | None = msgspec.field(default=None, name="BuildConfigDigest")
    build_trigger: str | None = msgspec.field(default=None, name="BuildTrigger")
    run_invocation_uri: str | None = msgspec.field(default=None, name="RunInvocationURI")
    source_repository_visibility_at_signing: str | None = msgspec.field(
        default=None, name="SourceRepositoryVisibilityAtSigning"
    )


class SignatureIdentity(Object, kw_only=True, frozen=True, omit_defaults=True):
    """SignatureIdentity contains the properties of verified signatures for the image."""

    name: str | None = msgspec.field(default=None, name="Name")
    timestamps: list[SignatureTimestamp] | None = msgspec.field(default=None, name="Timestamps")
    known_signer: str | None = msgspec.field(default=None, name="KnownSigner")
    docker_reference: str | None = msgspec.field(default=None, name="DockerReference")
    signer: SignerIdentity | None = msgspec.field(default=None, name="Signer")
    signature_type: str | None = msgspec.field(default=None, name="SignatureType")
    error: str | None = msgspec.field(default=None, name="Error")
    warnings: list[str] | None = msgspec.field(default=None, name="Warnings")


class PullIdentity(Object, kw_only=True, frozen=True, omit_defaults=True):
    """PullIdentity contains remote location information if image was created via pull."""

    repository: str | None = msgspec.field(default=None, name="Repository")


class BuildIdentity(Object, kw_only=True, frozen=True, omit_defaults=True):
    """BuildIdentity contains build reference information if image was created via build."""

    ref: str | None = msgspec.field(default=None, name="Ref")
    created_at: str | None = msgspec.field(default=None, name="CreatedAt")


class Identity(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Identity holds information about the identity and origin of the image."""

    signature: list[SignatureIdentity] | None = msgspec.field(default=None, name="Signature")
    pull: list[PullIdentity] | None = msgspec.field(default=None, name="Pull")
    build: list[BuildIdentity] | None = msgspec.field(default=None, name="Build")


class ImageManifestSummaryImageDataSize(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Size of an unpacked image, in bytes."""

    unpacked: int | None = msgspec.field(default=None, name="Unpacked")


class ImageManifestSummaryImageData(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The image data for the image manifest."""

    platform: OCIPlatform | None = msgspec.field(default=None, name="Platform")
    identity: Identity | None = msgspec.field(default=None, name="Identity")
    containers: list[str] | None = msgspec.field(default=None, name="Containers")
    size: ImageManifestSummaryImageDataSize | None = msgspec.field(default=None, name="Size")


class ImageManifestSummaryAttestationData(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The image data for the attestation manifest."""

    for_: str | None = msgspec.field(default=None, name="For")


class ImageManifestSummary(Object, kw_only=True, frozen=True, omit_defaults=True):
    """ImageManifestSummary represents a summary of an image manifest."""

    id: str | None = msgspec.field(default=None, name="ID")
    descriptor: OCIDescriptor | None = msgspec.field(default=None, name="Descriptor")
    available: bool | None = msgspec.field(default=None, name="Available")
    size: ImageManifestSummarySize | None = msgspec.field(default=None, name="Size")
    kind: str | None = msgspec.field(default=None, name="Kind")
    image_data: ImageManifestSummaryImageData | None = msgspec.field(default=None, name="ImageData")
    attestation_data: ImageManifestSummaryAttestationData | None = msgspec.field(
        default=None, name="AttestationData"
    )


class ImageInspectRootFS(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Information about the image's RootFS, including the layer IDs."""

    type: str | None = msgspec.field(default=None, name="Type")
    layers: list[str] | None = msgspec.field(default=None, name="Layers")


class ImageInspectMetadata(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Additional metadata of the image in the local cache."""

    last_tag_time: str | None = msgspec.field(default=None, name="LastTagTime")


class ImageInspect(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Information about an image in the local image cache."""

    id: str | None = msgspec.field(default=None, name="Id")
    descriptor: OCIDescriptor | None = msgspec.field(default=None, name="Descriptor")
    manifests: list[ImageManifestSummary] | None = msgspec.field(default=None, name="Manifests")
    identity: Identity | None = msgspec.field(default=None, name="Identity")
    repo_tags: list[str] | None = msgspec.field(default=None, name="RepoTags")
    repo_digests: list[str] | None = msgspec.field(default=None, name="RepoDigests")
    comment: str | None = msgspec.field(default=None, name="Comment")
    created: str | None = msgspec.field(default=None, name="Created")
    author: str | None = msgspec.field(default=None, name="Author")
    parent: str | None = msgspec.field(default=None, name="Parent")
    docker_version: str | None = msgspec.field(default=None, name="DockerVersion")
    container: str | None = msgspec.field(default=None, name="Container")
    config: ImageConfig | None = msgspec.field(default=None, name="Config")
    architecture: str | None = msgspec.field(default=None, name="Architecture")
    variant: str | None = msgspec.field(default=None, name="Variant")
    os: str | None = msgspec.field(default=None, name="Os")
    os_version: str | None = msgspec.field(default=None, name="OsVersion")
    size: int | None = msgspec.field(default=None, name="Size")
    graph_driver: DriverData | None = msgspec.field(default=None, name="GraphDriver")
    root_fs: ImageInspectRootFS | None = msgspec.field(default=None, name="RootFS")
    metadata: ImageInspectMetadata | None = msgspec.field(default=None, name="Metadata")


class ImageLayer(Object, kw_only=True, frozen=True, omit_defaults=True):
    """One layer of an image, lowest first (not part of Docker's API); sizes in bytes.

    ``size`` is of the unpacked layer, None when it is not unpacked.
    """

    digest: str | None = msgspec.field(default=None, name="Digest")
    diff_id: str | None = msgspec.field(default=None, name="DiffID")
    chain_id: str | None = msgspec.field(default=None, name="ChainID")
    media_type: str | None = msgspec.field(default=None, name="MediaType")
    content_size: int | None = msgspec.field(default=None, name="ContentSize")
    size: int | None = msgspec.field(default=None, name="Size")


class ImageMount(Object, kw_only=True, frozen=True, omit_defaults=True):
    """The mount (as mount(2) takes it) that shows an image (not part of Docker's API)."""

    id: str | None = msgspec.field(default=None, name="Id")
    type: str | None = msgspec.field(default=None, name="Type")
    source: str | None = msgspec.field(default=None, name="Source")
    options: list[str] | None = msgspec.field(default=None, name="Options")


class ImageSummary(Object, kw_only=True, frozen=True, omit_defaults=True):
    """One image in a list (``GET /images/json``)."""

    id: str | None = msgspec.field(default=None, name="Id")
    parent_id: str | None = msgspec.field(default=None, name="ParentId")
    repo_tags: list[str] | None = msgspec.field(default=None, name="RepoTags")
    repo_digests: list[str] | None = msgspec.field(default=None, name="RepoDigests")
    created: int | None = msgspec.field(default=None, name="Created")
    size: int | None = msgspec.field(default=None, name="Size")
    shared_size: int | None = msgspec.field(default=None, name="SharedSize")
    labels: dict[str, str] | None = msgspec.field(default=None, name="Labels")
    containers: int | None = msgspec.field(default=None, name="Containers")
    manifests: list[ImageManifestSummary] | None = msgspec.field(default=None, name="Manifests")
    descriptor: OCIDescriptor | None = msgspec.field(default=None, name="Descriptor")


class ImagesDiskUsage(Object, kw_only=True, frozen=True, omit_defaults=True):
    """represents system data usage for image resources."""

    active_count: int | None = msgspec.field(default=None, name="ActiveCount")
    total_count: int | None = msgspec.field(default=None, name="TotalCount")
    reclaimable: int | None = msgspec.field(default=None, name="Reclaimable")
    total_size: int | None = msgspec.field(default=None, name="TotalSize")
    items: list[dict[str, Json]] | None = msgspec.field(default=None, name="Items")


class AuthConfig(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Credentials of a registry."""

    username: str | None = None
    password: str | None = None
    serveraddress: str | None = None
    identitytoken: str | None = None
    registrytoken: str | None = None


class AuthResponse(Object, kw_only=True, frozen=True, omit_defaults=True):
    """An identity token was generated successfully."""

    status: str | None = msgspec.field(default=None, name="Status")
    identity_token: str | None = msgspec.field(default=None, name="IdentityToken")


class ImageID(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Image ID or Digest."""

    id: str | None = msgspec.field(default=None, name="ID")


class ErrorDetail(Object, kw_only=True, frozen=True, omit_defaults=True):
    """An error in a progress stream."""

    code: int | None = None
    message: str | None = None


class ProgressDetail(Object, kw_only=True, frozen=True, omit_defaults=True):
    """How far a transfer is, in bytes."""

    current: int | None = None
    total: int | None = None


class CreateImageInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A progress message of pull and import."""

    id: str | None = None
    error_detail: ErrorDetail | None = msgspec.field(default=None, name="errorDetail")
    status: str | None = None
    progress_detail: ProgressDetail | None = msgspec.field(default=None, name="progressDetail")


class PushImageInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A progress message of push."""

    error_detail: ErrorDetail | None = msgspec.field(default=None, name="errorDetail")
    status: str | None = None
    progress_detail: ProgressDetail | None = msgspec.field(default=None, name="progressDetail")


class ErrorResponse(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Represents an error."""

    message: str | None = None


class ImageDeleteResponseItem(Object, kw_only=True, frozen=True, omit_defaults=True):
    """One thing an image removal did: a name taken off or an image deleted."""

    untagged: str | None = msgspec.field(default=None, name="Untagged")
    deleted: str | None = msgspec.field(default=None, name="Deleted")


class DistributionInspect(Object, kw_only=True, frozen=True, omit_defaults=True):
    """Describes the result obtained from contacting the registry to retrieve image metadata."""

    descriptor: OCIDescriptor | None = msgspec.field(default=None, name="Descriptor")
    platforms: list[OCIPlatform] | None = msgspec.field(default=None, name="Platforms")


class AttestationStatement(Object, kw_only=True, frozen=True, omit_defaults=True):
    """AttestationStatement is a single in-toto statement attached to an image."""

    descriptor: OCIDescriptor | None = msgspec.field(default=None, name="Descriptor")
    predicate_type: str | None = msgspec.field(default=None, name="PredicateType")
    statement: dict[str, Json] | None = msgspec.field(default=None, name="Statement")


class BuildInfo(Object, kw_only=True, frozen=True, omit_defaults=True):
    """A progress message of a build."""

    id: str | None = None
    stream: str | None = None
    error_detail: ErrorDetail | None = msgspec.field(default=None, name="errorDetail")
    status: str | None = None
    progress_detail: ProgressDetail | None = msgspec.field(default=None, name="progressDetail")
    aux: ImageID | None = None


class BuildCache(Object, kw_only=True, frozen=True, omit_defaults=True):
    """BuildCache contains information about a build cache record."""

    id: str | None = msgspec.field(default=None, name="ID")
    parents: list[str] | None = msgspec.field(default=None, name="Parents")
    type: str | None = msgspec.field(default=None, name="Type")
    description: str | None = msgspec.field(default=None, name="Description")
    in_use: bool | None = msgspec.field(default=None, name="InUse")
    shared: bool | None = msgspec.field(default=None, name="Shared")
    size: int | None = msgspec.field(default=None, name="Size")
    created_at: str | None = msgspec.field(default=None, name="CreatedAt")
    last_used_at: str | None = msgspec.field(default=None, name="LastUsedAt")
    usage_count: int | None = msgspec.field(default=None, name="UsageCount")


class BuildCacheDiskUsage(Object, kw_only=True, frozen=True, omit_defaults=True):
    """represents system data usage for build cache resources."""

    active_count: int | None = msgspec.field(default=None, name="ActiveCount")
    total_count: int | None = msgspec.field(default=None, name="TotalCount")
    reclaimable: int | None = msgspec.field(default=None, name="Reclaimable")
    total_size: int | None = msgspec.field(default=None, name="TotalSize")
    items: list[dict[str, Json]] | None = msgspec.field(default=None, name="Items")


class ImagesPruneReport(Object, kw_only=True, frozen=True, omit_defaults=True):
    """What pruning images removed, and the bytes it freed."""

    images_deleted: list[ImageDeleteResponseItem] | None = msgspec.field(
        default=None, name="ImagesDeleted"
    )
    space_reclaimed: int | None = msgspec.field(default=None, name="SpaceReclaimed")


class BuildPruneReport(Object, kw_only=True, frozen=True, omit_defaults=True):
    """What pruning the build cache removed, and the bytes it freed."""

    caches_deleted: list[str] | None = msgspec.field(default=None, name="CachesDeleted")
    space_reclaimed: int | None = msgspec.field(default=None, name="SpaceReclaimed")


class ImageSearchItem(Object, kw_only=True, frozen=True, omit_defaults=True):
    """One repository a registry search found."""

    description: str | None = None
    is_official: bool | None = None
    is_automated: bool | None = None
    name: str | None = None
    star_count: int | None = None
