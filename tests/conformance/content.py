"""What every ContentStore must do. A store is one subclass with a ``make``."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from sampan.content import ContentStore
from sampan.errors import Conflict, Corrupt, DigestMismatch, InvalidParameter, NotFound
from sampan.model.digest import Digest

HELLO = b"hello, world"
DIGEST = Digest.of(HELLO)


class ContentStoreSuite:
    """Subclass as ``TestX`` and define :meth:`make`."""

    def make(self, root: Path) -> ContentStore:
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> ContentStore:
        return self.make(tmp_path)

    def test_written_blob_is_read_back(self, store: ContentStore) -> None:
        with store.writer(expected=DIGEST, size=len(HELLO)) as writer:
            writer.write(HELLO[:5])
            assert not store.exists(DIGEST)
            writer.write(memoryview(HELLO)[5:])
            assert writer.offset == len(HELLO)
            assert writer.commit() == DIGEST == writer.commit()
        assert store.read(DIGEST) == HELLO
        assert store.size(DIGEST) == len(HELLO)
        assert store.path(DIGEST).read_bytes() == HELLO
        with store.open(DIGEST) as blob:
            blob.seek(7)
            assert blob.read(100) == b"world"
        assert [info.digest for info in store.walk()] == [DIGEST]
        assert store.delete(DIGEST)
        assert not store.delete(DIGEST)
        assert list(store.walk()) == []

    @pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
    def test_algorithms(self, store: ContentStore, algorithm: str) -> None:
        with store.writer(algorithm=algorithm) as writer:
            writer.write(HELLO)
            digest = writer.commit()
        assert digest.hex == hashlib.new(algorithm, HELLO).hexdigest()
        assert store.read(digest) == HELLO

    def test_missing_is_not_found(self, store: ContentStore) -> None:
        for ask in (store.open, store.read, store.path, store.size):
            with pytest.raises(NotFound):
                ask(DIGEST)
        assert not store.exists(DIGEST)

    def test_wrong_bytes_keep_nothing(self, store: ContentStore) -> None:
        for ref in (None, "layer-1"):
            with store.writer(expected=DIGEST, ref=ref) as writer:
                writer.write(b"something else")
                with pytest.raises(DigestMismatch):
                    writer.commit()
        with store.writer() as writer:
            writer.write(HELLO)
            with pytest.raises(DigestMismatch):
                writer.commit(Digest.of(b"other"))
        with store.writer(size=5) as writer, pytest.raises(DigestMismatch, match="larger"):
            writer.write(HELLO)
        with store.writer(size=50) as writer:
            writer.write(HELLO)
            with pytest.raises(DigestMismatch, match="12 bytes"):
                writer.commit()
        assert list(store.walk()) == []
        assert list(store.ingests()) == []

    def test_uncommitted_is_gone(self, store: ContentStore) -> None:
        with store.writer() as writer:
            writer.write(HELLO)
        assert list(store.walk()) == []
        assert store.sweep(older_than=0) == 0

    def test_interrupted_transfer_goes_on(self, store: ContentStore, tmp_path: Path) -> None:
        with store.writer(expected=DIGEST, size=len(HELLO), ref="layer") as writer:
            writer.write(HELLO[:5])
        assert list(store.ingests()) == [("layer", 5)]
        again = self.make(tmp_path)  # after a restart
        with again.writer(expected=DIGEST, size=len(HELLO), ref="layer") as writer:
            assert writer.offset == 5
            with pytest.raises(Conflict):
                store.writer(ref="layer")
            with pytest.raises(Conflict):
                store.abort("layer")
            assert store.sweep(older_than=0) == 0
            writer.write(HELLO[5:])
            writer.commit()
        assert store.read(DIGEST) == HELLO
        assert list(store.ingests()) == []

    def test_server_without_ranges_starts_again(self, store: ContentStore) -> None:
        with store.writer(ref="layer") as writer:
            writer.write(b"xxxx")
            writer.truncate()
            assert writer.offset == 0
            writer.write(HELLO)
            assert writer.commit(DIGEST) == DIGEST

    def test_ingests_are_aborted_and_swept(self, store: ContentStore) -> None:
        for ref in ("one", "two"):
            with store.writer(ref=ref) as writer:
                writer.write(HELLO)
        assert store.abort("one")
        assert not store.abort("one")
        assert store.sweep(older_than=3600) == 0
        assert store.sweep(older_than=0) == len(HELLO)
        assert list(store.ingests()) == []

    def test_documents(self, store: ContentStore) -> None:
        assert store.add(HELLO) == store.add(HELLO, expected=DIGEST) == DIGEST
        with pytest.raises(DigestMismatch):
            store.add(HELLO, expected=Digest.of(b""))
        with pytest.raises(Corrupt, match="larger"):
            store.read(DIGEST, limit=3)

    def test_decayed_document_is_corrupt(self, store: ContentStore) -> None:
        store.add(HELLO)
        path = store.path(DIGEST)
        path.chmod(0o600)
        path.write_bytes(b"hello, wOrld")
        with pytest.raises(Corrupt):
            store.read(DIGEST)

    def test_unknown_algorithm(self, store: ContentStore) -> None:
        with pytest.raises(InvalidParameter):
            store.writer(algorithm="md5")

    def test_concurrent_writers_of_one_digest(self, store: ContentStore) -> None:
        data = bytes(range(256)) * 4096
        digest = Digest.of(data)
        failures: list[BaseException] = []
        barrier = threading.Barrier(6)

        def write() -> None:
            try:
                with store.writer(expected=digest) as writer:
                    barrier.wait(30)
                    for start in range(0, len(data), 65536):
                        writer.write(data[start : start + 65536])
                    writer.commit()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert store.read(digest) == data
        assert len(list(store.walk())) == 1

    def test_follower_reads_what_arrives(self, store: ContentStore) -> None:
        data = bytes(range(256)) * 1000
        digest = Digest.of(data)
        received = bytearray()
        first = threading.Event()

        def read() -> None:
            with store.follow(digest, timeout=30) as stream:
                while chunk := stream.read(10_000):
                    received.extend(chunk)
                    first.set()

        thread = threading.Thread(target=read)
        thread.start()
        with store.writer(expected=digest) as writer:
            writer.write(data[:5000])
            assert first.wait(30)  # before the rest was even written
            writer.write(data[5000:])
            writer.commit()
        thread.join()
        assert received == data
        with store.follow(digest, timeout=0) as stream:
            assert stream.read(10) == data[:10]

    def test_follower_survives_a_change_of_writers(self, store: ContentStore) -> None:
        with store.follow(DIGEST, timeout=30) as stream:
            with store.writer(expected=DIGEST, ref="r") as writer:
                writer.write(HELLO[:5])
                assert stream.read(100) == HELLO[:5]
            with store.writer(expected=DIGEST, ref="r") as writer:
                writer.write(HELLO[5:])
                assert stream.read(100) == HELLO[5:]
                writer.commit()
            assert stream.read(100) == b""

    def test_follower_gives_up(self, store: ContentStore) -> None:
        with store.follow(DIGEST, timeout=0.01) as stream, pytest.raises(NotFound):
            stream.read(1)
