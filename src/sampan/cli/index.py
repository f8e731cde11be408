"""Which command lives where: the one table every look-up, help page and completion starts from.

It is imported on every start, so it is plain data: a command's flags are in its own module.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A command: its canonical path, its other names, and where its declaration is."""

    path: str
    short: str
    module: str
    attribute: str
    aliases: tuple[str, ...] = ()
    #: Part of sampan but not of Docker.
    beyond: bool = False


def _top(group: str, name: str, short: str, module: str, *more: str, **options: bool) -> Entry:
    """A command of a group that also exists at the top under the same name."""
    attribute = name.upper().replace("-", "_")
    aliases = (*more, name)
    return Entry(f"{group} {name}", short, module, attribute, aliases, **options)


def _sub(group: str, name: str, short: str, module: str, *more: str, **options: bool) -> Entry:
    """A command of a group."""
    attribute = name.upper().replace("-", "_")
    return Entry(f"{group} {name}", short, module, attribute, more, **options)


_CONTAINER = (
    _top(
        "container",
        "attach",
        "Attach local standard input, output, and error streams to a running container",
        "attach",
    ),
    _top("container", "commit", "Create a new image from a container's changes", "commit"),
    _top(
        "container",
        "cp",
        "Copy files/folders between a container and the local filesystem",
        "copy",
    ),
    _top("container", "create", "Create a new container", "run"),
    _top(
        "container",
        "diff",
        "Inspect changes to files or directories on a container's filesystem",
        "diff",
    ),
    _top("container", "exec", "Execute a command in a running container", "exec"),
    _top("container", "export", "Export a container's filesystem as a tar archive", "archives"),
    Entry(
        "container inspect",
        "Display detailed information on one or more containers",
        "inspect",
        "CONTAINER",
    ),
    _top("container", "kill", "Kill one or more running containers", "lifecycle"),
    _top("container", "logs", "Fetch the logs of a container", "logs"),
    Entry(
        "container ls",
        "List containers",
        "containers",
        "LS",
        ("container list", "container ps", "ps"),
    ),
    _top("container", "pause", "Pause all processes within one or more containers", "lifecycle"),
    _top(
        "container",
        "port",
        "List port mappings or a specific mapping for the container",
        "port",
    ),
    Entry("container prune", "Remove all stopped containers", "prune", "CONTAINER"),
    _top("container", "rename", "Rename a container", "lifecycle"),
    _top("container", "restart", "Restart one or more containers", "lifecycle"),
    _top("container", "rm", "Remove one or more containers", "lifecycle", "container remove"),
    _top("container", "run", "Create and run a new container from an image", "run"),
    _top("container", "start", "Start one or more stopped containers", "start"),
    _top(
        "container",
        "stats",
        "Display a live stream of container(s) resource usage statistics",
        "stats",
    ),
    _top("container", "stop", "Stop one or more running containers", "lifecycle"),
    _top("container", "top", "Display the running processes of a container", "top"),
    _top(
        "container", "unpause", "Unpause all processes within one or more containers", "lifecycle"
    ),
    _top("container", "update", "Update configuration of one or more containers", "update"),
    _top(
        "container",
        "wait",
        "Block until one or more containers stop, then print their exit codes",
        "lifecycle",
    ),
    Entry("container exists", "Check whether a container exists", "exists", "CONTAINER", (), True),
    _top(
        "container",
        "clone",
        "Create a container with the configuration of another",
        "clone",
        beyond=True,
    ),
    _top("container", "init", "Prepare containers without starting them", "lifecycle", beyond=True),
    _top("container", "mount", "Mount a container's root file system", "mounts", beyond=True),
    _top("container", "unmount", "Unmount a container's root file system", "mounts", beyond=True),
)

_IMAGE = (
    Entry(
        "image build",
        "Build an image from a Dockerfile",
        "build",
        "BUILD",
        ("build", "builder build"),
    ),
    _top("image", "history", "Show the history of an image", "history"),
    _top(
        "image",
        "import",
        "Import the contents from a tarball to create a filesystem image",
        "archives",
    ),
    Entry(
        "image inspect", "Display detailed information on one or more images", "inspect", "IMAGE"
    ),
    _top("image", "load", "Load an image from a tar archive or STDIN", "archives"),
    Entry("image ls", "List images", "images", "LS", ("image list", "images")),
    Entry("image prune", "Remove unused images", "prune", "IMAGE"),
    _top("image", "pull", "Download an image from a registry", "pull"),
    _top("image", "push", "Upload an image to a registry", "push"),
    Entry("image rm", "Remove one or more images", "images", "RM", ("image remove", "rmi")),
    _top(
        "image",
        "save",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
        "archives",
    ),
    _top(
        "image",
        "tag",
        "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        "images",
    ),
    Entry("image exists", "Check whether an image exists", "exists", "IMAGE", (), True),
    _sub("image", "diff", "Show what an image changed", "layers", beyond=True),
    _sub("image", "mount", "Show an image's files as a directory", "layers", beyond=True),
    _sub("image", "scp", "Copy an image from or to another host", "layers", beyond=True),
    _sub("image", "tree", "Show the layers of an image", "layers", beyond=True),
    _sub("image", "unmount", "Take away an image's directory", "layers", beyond=True),
    _sub(
        "image",
        "bootstrap",
        "Build an image of a distribution from its own packages",
        "bootstrap",
        beyond=True,
    ),
)

_NETWORK = (
    _sub("network", "connect", "Connect a container to a network", "networks"),
    _sub("network", "create", "Create a network", "networks"),
    _sub("network", "disconnect", "Disconnect a container from a network", "networks"),
    Entry(
        "network inspect",
        "Display detailed information on one or more networks",
        "inspect",
        "NETWORK",
    ),
    _sub("network", "ls", "List networks", "networks", "network list"),
    Entry("network prune", "Remove all unused networks", "prune", "NETWORK"),
    _sub("network", "rm", "Remove one or more networks", "networks", "network remove"),
    Entry("network exists", "Check whether a network exists", "exists", "NETWORK", (), True),
)

_VOLUME = (
    _sub("volume", "create", "Create a volume", "volumes"),
    Entry(
        "volume inspect", "Display detailed information on one or more volumes", "inspect", "VOLUME"
    ),
    _sub("volume", "ls", "List volumes", "volumes", "volume list"),
    Entry("volume prune", "Remove unused local volumes", "prune", "VOLUME"),
    _sub("volume", "rm", "Remove one or more volumes", "volumes", "volume remove"),
    Entry("volume exists", "Check whether a volume exists", "exists", "VOLUME", (), True),
    _sub("volume", "rename", "Rename an unused volume", "volumes", beyond=True),
    _sub("volume", "snapshot", "Copy a volume to a new one", "volumes", beyond=True),
    _sub("volume", "export", "Write what a volume holds as a tar archive", "volumes", beyond=True),
    _sub("volume", "import", "Extract a tar archive into a volume", "volumes", beyond=True),
)

_CONTEXT = (
    _sub("context", "create", "Create a context", "contexts"),
    _sub(
        "context",
        "export",
        "Export a context to a tar archive FILE or a tar stream on STDOUT.",
        "context_archive",
    ),
    _sub("context", "import", "Import a context from a tar or zip file", "context_archive"),
    _sub("context", "inspect", "Display detailed information on one or more contexts", "contexts"),
    _sub("context", "ls", "List contexts", "contexts", "context list"),
    _sub("context", "rm", "Remove one or more contexts", "contexts", "context remove"),
    _sub("context", "show", "Print the name of the current context", "contexts"),
    _sub("context", "update", "Update a context", "contexts"),
    _sub("context", "use", "Set the current docker context", "contexts"),
)

_SYSTEM = (
    _sub("system", "df", "Show docker disk usage", "disk_usage"),
    _sub("system", "dial-stdio", "Proxy the stdio stream to the daemon connection", "dial_stdio"),
    _top("system", "events", "Get real time events from the server", "events"),
    _top("system", "info", "Display system-wide information", "info"),
    Entry("system prune", "Remove unused data", "prune", "SYSTEM"),
    _sub(
        "system service", "install", "Install and start the systemd units", "service", beyond=True
    ),
    _sub(
        "system service",
        "status",
        "Show whether the service is installed and running",
        "service",
        beyond=True,
    ),
)

_OTHER = (
    Entry("bake", "Build from a file", "bake", "BAKE", ("builder bake",), True),
    _sub("builder", "du", "Show what the build cache holds", "builder", beyond=True),
    Entry("builder prune", "Remove build cache", "prune", "BUILDER"),
    _sub("checkpoint", "create", "Create a checkpoint from a running container", "checkpoints"),
    _sub("checkpoint", "ls", "List checkpoints for a container", "checkpoints", "checkpoint list"),
    _sub("checkpoint", "rm", "Remove a checkpoint", "checkpoints", "checkpoint remove"),
    _sub(
        "manifest", "annotate", "Add additional information to a local image manifest", "manifests"
    ),
    _sub(
        "manifest",
        "create",
        "Create a local manifest list for annotating and pushing to a registry",
        "manifests",
    ),
    _sub("manifest", "inspect", "Display an image manifest, or manifest list", "manifests"),
    _sub("manifest", "push", "Push a manifest list to a repository", "manifests"),
    _sub("manifest", "rm", "Delete one or more manifest lists from local storage", "manifests"),
    _sub("registry", "serve", "Run an image registry", "registry", beyond=True),
    Entry("inspect", "Return low-level information on Docker objects", "inspect", "ANY"),
    Entry("login", "Authenticate to a registry", "login", "LOGIN"),
    Entry("logout", "Log out from a registry", "login", "LOGOUT"),
    Entry("search", "Search a registry for images", "search", "SEARCH"),
    Entry("version", "Show the version information", "version", "VERSION"),
    Entry("why", "Explain why a container ended or is slow", "why", "WHY", (), True),
    Entry("completion", "Generate the completion script of a shell", "documents", "COMPLETION"),
    Entry("man", "Write the manual pages", "documents", "MAN", (), True),
    Entry("__complete", "", "documents", "COMPLETE", (), True),
)

ENTRIES = (*_CONTAINER, *_IMAGE, *_NETWORK, *_VOLUME, *_CONTEXT, *_SYSTEM, *_OTHER)

GROUPS = {
    "builder": "Manage builds",
    "checkpoint": "Manage checkpoints",
    "container": "Manage containers",
    "context": "Manage contexts",
    "image": "Manage images",
    "manifest": "Manage image manifests and manifest lists",
    "network": "Manage networks",
    "registry": "Run registries",
    "system": "Manage the engine",
    "system service": "Manage the system service",
    "volume": "Manage volumes",
}

#: The commands the root help names first.
COMMON = (
    "run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search",
    "version", "info",
)  # fmt: skip


def lookup() -> dict[str, Entry]:
    """Every path, aliases included, to its entry."""
    table = {}
    for entry in ENTRIES:
        table[entry.path] = entry
        for alias in entry.aliases:
            table[alias] = entry
    return table
