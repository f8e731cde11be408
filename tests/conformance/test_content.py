"""The content stores there are, held to the suite."""

from pathlib import Path

from sampan.content import ContentStore
from sampan.content.store import FileStore
from tests.conformance.content import ContentStoreSuite


class TestFileStore(ContentStoreSuite):
    def make(self, root: Path) -> ContentStore:
        return FileStore(root / "content")
