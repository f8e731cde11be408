"""``image ls --tree``: images with the platforms they hold."""

from __future__ import annotations

from sampan.cli.show import short_id
from sampan.cli.table import align
from sampan.cli.units import human_size
from sampan.client.document import flag, number, table, tables, text, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.document import Document


def render(images: list[Document]) -> str:
    """The tree of the images that have a name."""
    lines = ["IMAGE\tID\tDISK USAGE\tCONTENT SIZE\tIN USE"]
    for image in images:
        manifests = [m for m in tables(image, "Manifests") if text(m, "Kind") == "image"]
        content = sum(number(table(m, "Size"), "Content") for m in manifests)
        used = any(texts(table(m, "ImageData"), "Containers") for m in manifests)
        used = used or number(image, "Containers") > 0
        for name in texts(image, "RepoTags") or ["<untagged>"]:
            sizes = (human_size(number(image, "Size"), 3), _content(content))
            lines.append("\t".join((name, short_id(text(image, "Id")), *sizes, _mark(used))))
        for place, manifest in enumerate(manifests):
            branch = "└─" if place == len(manifests) - 1 else "├─"
            lines.append(f"{branch} {_manifest(manifest)}")
    return align("\n".join(lines)) + "\n"


def _manifest(manifest: Document) -> str:
    platform = table(table(manifest, "ImageData"), "Platform")
    names = (text(platform, key) for key in ("os", "architecture", "variant"))
    size = table(manifest, "Size")
    total = human_size(number(size, "Total"), 3) if flag(manifest, "Available") else "0B"
    cells = (
        "/".join(name for name in names if name),
        short_id(text(manifest, "ID")),
        total,
        _content(number(size, "Content")),
        _mark(bool(texts(table(manifest, "ImageData"), "Containers"))),
    )
    return "\t".join(cells)


def _content(size: int) -> str:
    return human_size(size, 3) if size else ""


def _mark(used: bool) -> str:
    return "✔" if used else ""
