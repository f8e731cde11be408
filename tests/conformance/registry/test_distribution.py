"""The OCI distribution specification, category by category, over every kind of store."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import pytest

from sampan.model.descriptor import OCI_INDEX
from sampan.model.digest import Digest
from tests.conformance.registry.conftest import Server
from tests.unit.registry import samples


def code(body: bytes) -> str:
    """The error code of an answer."""
    return str(json.loads(body)["errors"][0]["code"])


async def test_base_and_extensions(server: Server) -> None:
    assert (await server.ask("GET", "/v2/"))[0] == 200
    _, _, body = await server.ask("GET", "/v2/_oci/ext/discover")
    assert [item["name"] for item in json.loads(body)["extensions"]] == ["_oci"]


# -- pull


async def test_pull(server: Server) -> None:
    sample = samples.image(2)
    status, headers, _ = await server.push("a/b", sample, "v1")
    assert status == 201
    assert headers["location"] == f"/v2/a/b/manifests/{sample.digest}"
    for reference in ("v1", str(sample.digest)):
        for method in ("GET", "HEAD"):
            status, headers, body = await server.ask(method, f"/v2/a/b/manifests/{reference}")
            assert status == 200
            assert headers["docker-content-digest"] == str(sample.digest)
            assert headers["content-type"] == sample.media_type
            assert headers["content-length"] == str(len(sample.manifest))
            assert body == (sample.manifest if method == "GET" else b"")
    for data in sample.blobs:
        path = f"/v2/a/b/blobs/{Digest.of(data)}"
        status, headers, body = await server.ask("GET", path)
        assert (status, body) == (200, data)
        status, headers, body = await server.ask("HEAD", path)
        assert (status, body) == (200, b"")
        assert headers["content-length"] == str(len(data))
        assert headers["docker-content-digest"] == str(Digest.of(data))
    status, headers, _ = await server.ask(
        "GET", "/v2/a/b/manifests/v1", headers={"If-None-Match": f'"{sample.digest}"'}
    )
    assert status == 304


async def test_ranges_of_blobs(server: Server) -> None:
    data = os.urandom(5000)
    path = f"/v2/a/blobs/{await server.push_blob('a', data)}"
    status, headers, body = await server.ask("GET", path, headers={"Range": "bytes=100-199"})
    assert (status, body) == (206, data[100:200])
    assert headers["content-range"] == "bytes 100-199/5000"
    _, _, body = await server.ask("GET", path, headers={"Range": "bytes=4990-"})
    assert body == data[4990:]
    _, _, body = await server.ask("GET", path, headers={"Range": "bytes=-7"})
    assert body == data[-7:]
    status, _, _ = await server.ask("GET", path, headers={"Range": "bytes=5000-"})
    assert status == 416


async def test_what_is_not_there(server: Server) -> None:
    digest = Digest.of(b"nothing")
    await server.push("a", samples.image(), "v1")
    for method, path, expected in (
        ("GET", "/v2/a/manifests/nope", "MANIFEST_UNKNOWN"),
        ("GET", f"/v2/a/manifests/{digest}", "MANIFEST_UNKNOWN"),
        ("GET", f"/v2/a/blobs/{digest}", "BLOB_UNKNOWN"),
        ("GET", "/v2/none/tags/list", "NAME_UNKNOWN"),
        ("DELETE", f"/v2/none/manifests/{digest}", "NAME_UNKNOWN"),
        ("DELETE", "/v2/a/manifests/nope", "MANIFEST_UNKNOWN"),
        ("DELETE", f"/v2/a/blobs/{digest}", "BLOB_UNKNOWN"),
        ("GET", "/v2/a/blobs/uploads/x", "BLOB_UPLOAD_UNKNOWN"),
    ):
        status, _, body = await server.ask(method, path)
        assert (status, code(body)) == (404, expected), path
    # A blob is only visible through a repository that has it.
    blob = await server.push_blob("private", b"secret")
    assert (await server.ask("GET", f"/v2/a/blobs/{blob}"))[0] == 404


# -- push


async def begin(server: Server, query: str = "") -> str:
    status, headers, _ = await server.ask("POST", f"/v2/a/blobs/uploads/{query}", b"")
    assert status == 202
    return headers["location"]


def ending(location: str, digest: Digest) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_post_then_put(server: Server, algorithm: str) -> None:
    data = os.urandom(3_000_000)
    digest = Digest.of(data, algorithm)
    location = await begin(server, f"?digest-algorithm={algorithm}")
    status, headers, _ = await server.ask("PUT", ending(location, digest), data)
    assert status == 201
    assert headers["docker-content-digest"] == str(digest)
    assert (await server.ask("GET", headers["location"]))[2] == data


async def test_an_empty_blob(server: Server) -> None:
    digest = Digest.of(b"")
    status, headers, _ = await server.ask("PUT", ending(await begin(server), digest), b"")
    assert status == 201
    assert (await server.ask("GET", headers["location"]))[::2] == (200, b"")


async def test_chunks_in_order_resumed_after_a_wrong_one(server: Server) -> None:
    data = os.urandom(300_000)
    location = await begin(server)
    for start in (0, 100_000):
        status, headers, _ = await server.ask(
            "PATCH",
            location,
            data[start : start + 100_000],
            {"Content-Range": f"{start}-{start + 99_999}"},
        )
        assert (status, headers["range"]) == (202, f"0-{start + 99_999}")
        location = headers["location"]
        # A chunk out of order changes nothing.
        status, headers, _ = await server.ask(
            "PATCH", location, b"x" * 10, {"Content-Range": "7-16"}
        )
        assert (status, headers["range"]) == (416, f"0-{start + 99_999}")
    status, headers, _ = await server.ask("GET", location)
    assert (status, headers["range"]) == (204, "0-199999")
    final = {"Content-Range": "200000-299999"}
    path = ending(headers["location"], Digest.of(data))
    status, headers, _ = await server.ask("PUT", path, data[200_000:], final)
    assert status == 201
    assert (await server.ask("GET", headers["location"]))[2] == data
    assert (await server.ask("GET", location))[0] == 404


async def test_a_stream_of_unknown_length(server: Server) -> None:
    data = os.urandom(2_500_000)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    location = await begin(server)
    status, headers, _ = await server.ask("PATCH", location, pieces())
    assert (status, headers["range"]) == (202, f"0-{len(data) - 1}")
    status, headers, _ = await server.ask("PUT", ending(location, Digest.of(data)), b"")
    assert status == 201


async def test_large_uploads_in_parts(server: Server) -> None:
    data = os.urandom(40_000_000)
    location = await begin(server)
    status, _, _ = await server.ask("PATCH", location, data[:35_000_000])
    assert status == 202
    status, _, _ = await server.ask("PATCH", location, data[35_000_000:])
    assert status == 202
    status, headers, _ = await server.ask("PUT", ending(location, Digest.of(data)), b"")
    assert status == 201
    assert Digest.of((await server.ask("GET", headers["location"]))[2]) == Digest.of(data)


async def test_wrong_uploads(server: Server) -> None:
    location = await begin(server)
    status, _, body = await server.ask("PUT", location, b"x")
    assert (status, code(body)) == (400, "DIGEST_INVALID")
    for text in ("sha256:zz", "md5:" + "a" * 32, "x"):
        status, _, body = await server.ask("PUT", f"{location}?digest={text}", b"x")
        assert (status, code(body)) == (400, "DIGEST_INVALID")
    status, _, body = await server.ask("PUT", ending(location, Digest.of(b"other")), b"x")
    assert (status, code(body)) == (400, "DIGEST_INVALID")
    assert (await server.ask("GET", f"/v2/a/blobs/{Digest.of(b'other')}"))[0] == 404
    location = await begin(server)
    status, _, body = await server.ask("PATCH", location, b"xyz", {"Content-Range": "0-9"})
    assert (status, code(body)) == (400, "SIZE_INVALID")
    # Another repository's upload is not there.
    assert (await server.ask("GET", location.replace("/a/", "/b/")))[0] == 404
    assert (await server.ask("DELETE", location))[0] == 204
    assert (await server.ask("GET", location))[0] == 404
    status, _, body = await server.ask("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", b"")
    assert (status, code(body)) == (400, "DIGEST_INVALID")


async def test_mounts(server: Server) -> None:
    digest = await server.push_blob("from", b"data")
    path = f"/v2/to/blobs/uploads/?mount={digest}"
    status, headers, _ = await server.ask("POST", f"{path}&from=from", b"")
    assert (status, headers["docker-content-digest"]) == (201, str(digest))
    assert (await server.ask("GET", headers["location"]))[2] == b"data"
    assert (await server.ask("POST", f"{path}&from=elsewhere", b""))[0] == 202
    assert (await server.ask("POST", path, b""))[0] == 202


async def test_manifests_need_what_they_refer_to(server: Server) -> None:
    sample = samples.image(1)
    path = "/v2/a/manifests/v1"
    headers = {"Content-Type": sample.media_type}
    status, _, body = await server.ask("PUT", path, sample.manifest, headers)
    assert (status, code(body)) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert (await server.ask("GET", path))[0] == 404
    listed = samples.index(sample.descriptor())
    status, _, body = await server.push("a", listed, "v1")
    assert (status, code(body)) == (404, "MANIFEST_BLOB_UNKNOWN")
    await server.push("a", sample)
    assert (await server.push("a", listed, "v1"))[0] == 201
    assert (await server.ask("GET", path))[1]["content-type"] == OCI_INDEX


async def test_wrong_manifests(server: Server) -> None:
    sample = samples.image(0)
    await server.push("a", sample)
    headers = {"Content-Type": sample.media_type}
    other = Digest.of(b"x")
    for path, body, expected, status in (
        (f"/v2/a/manifests/{other}", sample.manifest, "DIGEST_INVALID", 400),
        ("/v2/a/manifests/v1", b"{}", "MANIFEST_INVALID", 400),
        ("/v2/a/manifests/v1", b"not json", "MANIFEST_INVALID", 400),
        ("/v2/a/manifests/v1", b" " * (5 << 20), "MANIFEST_INVALID", 413),
        ("/v2/a/manifests/.v1", sample.manifest, "MANIFEST_INVALID", 400),
        ("/v2/A/manifests/v1", sample.manifest, "NAME_INVALID", 400),
    ):
        found, _, answer = await server.ask("PUT", path, body, headers)
        assert (found, code(answer)) == (status, expected), path
    status, _, _ = await server.ask(
        "PUT", "/v2/a/manifests/v1", sample.manifest, {"Content-Type": OCI_INDEX}
    )
    assert status == 400


async def test_several_tags_at_once(server: Server) -> None:
    sample = samples.image(1)
    await server.push("a", sample)
    path = f"/v2/a/manifests/{sample.digest}?tag=1&tag=1.2&tag=latest"
    status, headers, _ = await server.ask(
        "PUT", path, sample.manifest, {"Content-Type": sample.media_type}
    )
    assert (status, headers["oci-tag"]) == (201, "1, 1.2, latest")
    assert json.loads((await server.ask("GET", "/v2/a/tags/list"))[2])["tags"] == [
        "1",
        "1.2",
        "latest",
    ]


# -- content discovery


async def test_tags_in_pages(server: Server) -> None:
    sample = samples.image(0)
    await server.push("a", sample)
    tags = sorted([f"t{number}" for number in range(7)] + ["Z", "_", "a.b", "a-b"])
    query = "&".join(f"tag={tag}" for tag in tags)
    await server.ask(
        "PUT",
        f"/v2/a/manifests/{sample.digest}?{query}",
        sample.manifest,
        {"Content-Type": sample.media_type},
    )
    _, headers, body = await server.ask("GET", "/v2/a/tags/list")
    assert json.loads(body) == {"name": "a", "tags": tags}
    assert "link" not in headers
    found: list[str] = []
    path = "/v2/a/tags/list?n=4"
    while path:
        _, headers, body = await server.ask("GET", path)
        page = json.loads(body)["tags"]
        assert len(page) <= 4
        found += page
        path = headers.get("link", "").partition(">")[0].removeprefix("<")
    assert found == tags
    _, headers, body = await server.ask("GET", "/v2/a/tags/list?n=0")
    assert (json.loads(body)["tags"], "link" in headers) == ([], False)
    _, _, body = await server.ask("GET", "/v2/a/tags/list?last=a-c")
    assert json.loads(body)["tags"] == [tag for tag in tags if tag > "a-c"]
    assert (await server.ask("GET", "/v2/a/tags/list?n=x"))[0] == 400


async def test_referrers(server: Server) -> None:
    subject = samples.image(1)
    about = subject.descriptor()
    signature = samples.image(1, subject=about, artifact_type="x/signature", annotations={"k": "v"})
    plain = samples.image(1, subject=about)
    path = f"/v2/a/referrers/{subject.digest}"
    _, headers, body = await server.ask("GET", path)
    assert (headers["content-type"], json.loads(body)["manifests"]) == (OCI_INDEX, [])
    for sample in (signature, plain):  # before the subject is there
        status, headers, _ = await server.push("a", sample)
        assert (status, headers["oci-subject"]) == (201, str(subject.digest))
    await server.push("a", subject)
    _, headers, body = await server.ask("GET", path)
    found = {item["digest"]: item for item in json.loads(body)["manifests"]}
    assert set(found) == {str(signature.digest), str(plain.digest)}
    assert found[str(signature.digest)] == signature.descriptor(
        artifactType="x/signature", annotations={"k": "v"}
    )
    assert found[str(plain.digest)]["artifactType"] == "application/vnd.oci.image.config.v1+json"
    assert "oci-filters-applied" not in headers
    _, headers, body = await server.ask("GET", f"{path}?artifactType=x/signature")
    assert [item["digest"] for item in json.loads(body)["manifests"]] == [str(signature.digest)]
    assert headers["oci-filters-applied"] == "artifactType"
    await server.ask("DELETE", f"/v2/a/manifests/{signature.digest}")
    _, _, body = await server.ask("GET", path)
    assert [item["digest"] for item in json.loads(body)["manifests"]] == [str(plain.digest)]
    assert (await server.ask("GET", "/v2/a/referrers/sha256:x"))[0] == 400


async def test_the_catalog_in_pages(server: Server) -> None:
    names = ["a", "a/b", "b/c/d", "z"]
    for name in names:
        await server.push(name, samples.image(0), "t")
    _, headers, body = await server.ask("GET", "/v2/_catalog?n=3")
    first = json.loads(body)["repositories"]
    link = headers["link"].partition(">")[0].removeprefix("<")
    _, headers, body = await server.ask("GET", link)
    assert sorted(first + json.loads(body)["repositories"]) == names
    assert "link" not in headers


# -- content management


async def test_deleting(server: Server) -> None:
    sample = samples.image(1)
    for tag in ("one", "two"):
        await server.push("a", sample, tag)
    await server.push("b", sample, "one")
    assert (await server.ask("DELETE", "/v2/a/manifests/one"))[0] == 202
    assert (await server.ask("GET", "/v2/a/manifests/one"))[0] == 404
    assert (await server.ask("GET", "/v2/a/manifests/two"))[0] == 200
    assert (await server.ask("DELETE", f"/v2/a/manifests/{sample.digest}"))[0] == 202
    assert (await server.ask("GET", "/v2/a/manifests/two"))[0] == 404
    assert json.loads((await server.ask("GET", "/v2/a/tags/list"))[2])["tags"] == []
    blob = Digest.of(sample.blobs[1])
    assert (await server.ask("DELETE", f"/v2/a/blobs/{blob}"))[0] == 202
    assert (await server.ask("GET", f"/v2/a/blobs/{blob}"))[0] == 404
    # Another repository keeps what it has.
    assert (await server.ask("GET", f"/v2/b/blobs/{blob}"))[0] == 200
    assert (await server.ask("GET", "/v2/b/manifests/one"))[0] == 200


async def test_methods_that_do_not_exist(server: Server) -> None:
    status, headers, body = await server.ask("DELETE", "/v2/a/tags/list")
    assert (status, code(body), headers["allow"]) == (405, "UNSUPPORTED", "GET")
