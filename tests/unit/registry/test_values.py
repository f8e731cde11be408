"""Registries, credentials, proxies, paths, ranges, rights, manifests: parsers and decisions."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sampan.errors import Forbidden, InvalidParameter, NotFound
from sampan.model.descriptor import OCI_INDEX, OCI_MANIFEST
from sampan.model.digest import Digest
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.registry import manifest as manifests
from sampan.registry.credentials import ConfigFile, decode_header
from sampan.registry.http import Reply, TooManyRequests, explanation, failure
from sampan.registry.progress import LayerProgress, Step, as_docker, bar
from sampan.registry.pull import choose
from sampan.registry.registries import Registries
from sampan.registry.repository import referrers_tag
from sampan.registry.server.access import Identity, Rules
from sampan.registry.server.config import Access, ServerConfig, load
from sampan.registry.server.errors import ProtocolError
from sampan.registry.server.passwords import parse as parse_htpasswd
from sampan.registry.server.ranges import parse_chunk, parse_range
from sampan.registry.server.routing import Endpoint, Route, parse, reference
from sampan.registry.server.sigv4 import Credentials as Keys
from sampan.registry.server.sigv4 import presign, sign_headers
from sampan.registry.session import Patience, retry_after
from sampan.registry.tls import Proxies
from tests.unit.registry import samples

CONF = """
unqualified-search-registries = ["reg.example"]
[aliases]
tool = "tools.example/team/tool"
[[registry]]
prefix = "example.org/team"
location = "internal.example/mirror-of-team"
insecure = true
[[registry.mirror]]
location = "fast.example/team"
[[registry.mirror]]
location = "digests.example/team"
pull-from-mirror = "digest-only"
[[registry]]
location = "evil.example"
blocked = true
[[registry]]
prefix = "*.wild.example"
"""


def places(registries: Registries, text: str) -> list[str]:
    found = registries.endpoints(Reference.parse(text))
    return [f"{item.host}/{item.repository}{'?' if item.insecure else ''}" for item in found]


def test_registries_conf() -> None:
    conf = Registries.parse(CONF)
    digest = "sha256:" + "a" * 64
    assert places(conf, "example.org/team/app:1") == [
        "fast.example/team/app",
        "internal.example/mirror-of-team/app?",
    ]
    assert places(conf, f"example.org/team/app@{digest}")[1] == "digests.example/team/app"
    assert places(conf, "example.org/teams/app") == ["example.org/teams/app"]
    assert places(conf, "a.wild.example/x") == ["a.wild.example/x"]
    with pytest.raises(Forbidden):
        conf.endpoints(Reference.parse("evil.example/x"))
    assert str(conf.resolve("tool:2")) == "tools.example/team/tool:2"
    assert str(conf.resolve("app")) == "reg.example/app"
    assert str(conf.resolve("host.example/app")) == "host.example/app"
    assert conf.push_endpoint(Reference.parse("example.org/team/app")).host == "internal.example"


def test_drop_in_files_replace_what_came_before(tmp_path: Path) -> None:
    (tmp_path / "registries.conf").write_text(CONF)
    drop_ins = tmp_path / "registries.conf.d"
    drop_ins.mkdir()
    (drop_ins / "10.conf").write_text(
        '[aliases]\nmore = "r.example/more"\n[[registry]]\nlocation = "evil.example"\n'
    )
    conf = Registries.load(tmp_path / "registries.conf", [drop_ins, tmp_path / "none"])
    assert places(conf, "evil.example/x") == ["evil.example/x"]
    assert [str(conf.resolve(name)) for name in ("tool", "more")] == [
        "tools.example/team/tool",
        "r.example/more",
    ]
    (drop_ins / "20.conf").write_text("x = [")
    with pytest.raises(InvalidParameter, match=r"20\.conf"):
        Registries.load(tmp_path / "registries.conf", [drop_ins])
    assert Registries.load(tmp_path / "none") == Registries()


@pytest.mark.parametrize("text", ["[registries]", "x = [", '[[registry]]\nfoo = 1\nlocation="a"'])
def test_a_wrong_registries_conf_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        Registries.parse(text)


def test_daemon_options() -> None:
    options = Registries().with_daemon_options(
        hub_mirrors=["https://mirror.example"], insecure=["10.0.0.0/8", "lab:5000"]
    )
    assert next(item.host for item in options.endpoints(Reference.parse("debian"))) == (
        "mirror.example"
    )
    insecure = {host: options.is_insecure(host) for host in ("10.1.2.3:5000", "lab:5000", "lab:1")}
    assert insecure == {"10.1.2.3:5000": True, "lab:5000": True, "lab:1": False}
    assert options.is_insecure("127.0.0.1:5000")
    assert options.is_insecure("[::1]:5000")
    assert not options.is_insecure("r.example")


def test_credentials() -> None:
    document = {"username": "u", "password": "p", "serveraddress": "r.example"}
    text = base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
    found, server = decode_header(text)
    assert (found.username, found.password, server) == ("u", "p", "r.example")
    assert "p'" not in repr(found)
    assert not decode_header("")[0]
    assert not decode_header(base64.urlsafe_b64encode(b"{}").decode())[0]
    with pytest.raises(InvalidParameter):
        decode_header("e30=x!")
    hub = base64.b64encode(b"me:secret:with:colons").decode()
    file = ConfigFile.parse(
        json.dumps(
            {
                "auths": {"https://index.docker.io/v1/": {"auth": hub}, "r:5000": {}},
                "credHelpers": {"h.example": "pass"},
                "credsStore": "",
            }
        ).encode()
    )
    assert file.stored("docker.io").password == "secret:with:colons"
    assert not file.stored("r:5000")
    assert file.helper("h.example") == "pass"


async def test_a_credential_helper_is_asked(tmp_path: Path) -> None:
    helper = tmp_path / "docker-credential-fake"
    helper.write_text(
        '#!/bin/sh\nread host || :\ncase "$host" in\n'
        'known) echo \'{"Username":"u","Secret":"s"}\';;\n'
        'token) echo \'{"Username":"<token>","Secret":"s"}\';;\n'
        "*) echo credentials not found in native keychain; exit 1;;\nesac\n"
    )
    helper.chmod(0o755)
    file = ConfigFile(store="fake")
    search = f"{tmp_path}:/usr/bin:/bin"
    assert (await file.find("known", path=search)).password == "s"
    assert (await file.find("token", path=search)).identity_token == "s"
    assert not await file.find("other", path=search)
    with pytest.raises(InvalidParameter):
        await ConfigFile(store="../x").find("known", path=search)


def test_proxies() -> None:
    proxies = Proxies(http="p:1", https="http://p:2", none=".corp.example, 10.0.0.0/8,exact:81")
    assert proxies.of("https://r.example/v2/") == "http://p:2"
    assert proxies.of("http://r.example/v2/") == "http://p:1"
    direct = ("http://a.corp.example", "http://10.9.9.9", "http://exact:81", "http://127.0.0.1:5")
    assert [proxies.of(url) for url in direct] == ["", "", "", ""]
    assert proxies.of("http://exact:82") == "http://p:1"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v2/", Route(Endpoint.BASE)),
        ("/v2/_catalog", Route(Endpoint.CATALOG)),
        ("/v2/a/b/manifests/v1", Route(Endpoint.MANIFEST, "a/b", "v1")),
        ("/v2/a/blobs/blobs/sha256:x", Route(Endpoint.BLOB, "a/blobs", "sha256:x")),
        ("/v2/a/blobs/uploads/", Route(Endpoint.UPLOADS, "a")),
        ("/v2/a/blobs/uploads/u", Route(Endpoint.UPLOAD, "a", "u")),
        ("/v2/manifests/manifests/tags/list", Route(Endpoint.TAGS, "manifests/manifests")),
        ("/v2/a/referrers/sha256:x", Route(Endpoint.REFERRERS, "a", "sha256:x")),
        ("/v2/_oci/ext/discover", Route(Endpoint.EXTENSIONS)),
        ("/v2/a/_oci/ext/discover", Route(Endpoint.EXTENSIONS, "a")),
        ("/v3/", None),
        ("/v2/a", None),
        ("/v2/a/wrong/x", None),
    ],
)
def test_routes(path: str, route: Route | None) -> None:
    assert parse(path) == route


@pytest.mark.parametrize(
    "name", ["../x", "a/../b", "A", "a//b", "/a", "_a", "a_", "a/.", "a\n", "é", "a" * 256, "a\0"]
)
def test_names_against_the_grammar_are_refused(name: str) -> None:
    with pytest.raises(ProtocolError, match="invalid repository name"):
        parse(f"/v2/{name}/manifests/x")


@pytest.mark.parametrize("text", ["", ".", "..", "-a", "a/b", "a" * 129, "sha256:zz", "x:y"])
def test_references_against_the_grammar_are_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        reference(text)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=5-", (5, 100)),
        ("bytes=-5", (95, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=90-900", (90, 100)),
        ("bytes=0-1,5-6", None),
        ("bytes=-", None),
        ("bytes=9-5", None),
        ("items=0-1", None),
    ],
)
def test_ranges(header: str, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=-0", "bytes=1000-2000"])
def test_ranges_outside_are_416(header: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_range(header, 100)
    assert (caught.value.status, caught.value.headers["Content-Range"]) == (416, "bytes */100")


def test_chunk_ranges() -> None:
    assert parse_chunk("10-19", 10) == 10
    for header, length in (("10-19", 9), ("9-5", None), ("bytes 1-2/3", None), ("1-", None)):
        with pytest.raises(ProtocolError):
            parse_chunk(header, length)


def test_rights() -> None:
    rules = Rules(
        [
            Access(user="", repository="public/*", actions=("pull",)),
            Access(user="ci", repository="team/*", actions=("pull", "push")),
            Access(user="*", repository="shared", actions=("pull",)),
        ],
        open=False,
    )
    anonymous, ci = Identity(), Identity(user="ci")
    assert rules.allows(anonymous, "public/a/b", "pull")
    assert not rules.allows(anonymous, "public/a", "push")
    assert not rules.allows(anonymous, "shared", "pull")
    assert rules.allows(ci, "team/x", "push")
    assert not rules.allows(ci, "team/x", "delete")
    granted = rules.grant("ci", ["repository:team/x:pull,push,delete", "repository:other:pull"])
    token = Identity(user="ci", grants=granted)
    assert [(item.name, item.actions) for item in granted] == [("team/x", ("pull", "push"))]
    assert rules.allows(token, "team/x", "push")
    assert not rules.allows(token, "shared", "pull")  # the token says what it allows, no rule
    assert Rules([], open=True).allows(anonymous, "x", "delete")
    assert not Rules([], open=False).allows(anonymous, "x", "pull")


def test_htpasswd_takes_only_bcrypt() -> None:
    assert parse_htpasswd("# c\n\nu:$2y$05$abc\n") == {"u": b"$2y$05$abc"}
    with pytest.raises(InvalidParameter, match="line 1"):
        parse_htpasswd("u:{SHA}x")


def test_a_misspelt_key_of_the_server_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[storage]\nrooot = 'x'\n")
    with pytest.raises(InvalidParameter, match="rooot"):
        load(path)
    path.write_text('listen = "[::1]:0"\n[[quotas]]\nrepository="a"\nbytes=5\n')
    assert load(path).quotas[0].bytes == 5
    with pytest.raises(InvalidParameter):
        ServerConfig(listen="nowhere")


def test_signature_version_4_gives_the_published_signatures() -> None:
    """AWS: "Signature Calculations ... Examples" (GET object, and a presigned URL)."""
    keys = Keys(
        access_key="AKIAIOSFODNN7EXAMPLE",
        secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        region="us-east-1",
    )
    now = datetime(2013, 5, 24, tzinfo=UTC)
    host = "examplebucket.s3.amazonaws.com"
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    signed = sign_headers(keys, "GET", host, "/test.txt", {}, {"Range": "bytes=0-9"}, empty, now)
    assert signed["authorization"].endswith(
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
    query = presign(keys, "GET", host, "/test.txt", {}, now, 86400)
    assert query.endswith(
        "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_manifests() -> None:
    sample = samples.image(2)
    view = manifests.parse(sample.manifest, f"{OCI_MANIFEST}; charset=utf-8")
    assert view.media_type == OCI_MANIFEST
    assert [len(sample.blobs[0]), *map(len, sample.blobs[1:])] == [b.size for b in view.blobs]
    assert view.artifact_type == "application/vnd.oci.image.config.v1+json"
    assert manifests.parse(samples.index(sample.descriptor()).manifest).is_index


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"schemaVersion":1}',
        b'{"schemaVersion":2,"config":null,"layers":[]}',
        json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "layers": []}).encode(),
        json.dumps({"schemaVersion": 2, "mediaType": "text/html"}).encode(),
        json.dumps(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "layers": []}
        ).encode(),
        json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_INDEX,
                "manifests": [{"mediaType": "x", "digest": "sha256:../../x", "size": 1}],
            }
        ).encode(),
    ],
)
def test_what_is_no_manifest_is_refused(document: bytes) -> None:
    with pytest.raises(InvalidParameter):
        manifests.parse(document)


def test_a_manifest_of_another_type_than_announced_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="mediaType"):
        manifests.parse(samples.image().manifest, OCI_INDEX)


def test_a_platform_is_chosen() -> None:
    def entry(architecture: str, **more: object) -> dict[str, object]:
        platform = {"os": "linux", "architecture": architecture, **more}
        return samples.image().descriptor(platform=platform)

    attestation = samples.image().descriptor(platform={"os": "unknown", "architecture": "unknown"})
    entries = [attestation, entry("arm", variant="v6"), entry("arm", variant="v7"), entry("amd64")]
    listed = manifests.parse(samples.index(*entries).manifest).manifests
    name = Reference.parse("a")

    def chosen(text: str) -> str:
        return str(choose(listed, Platform.parse(text), name).platform)

    assert chosen("linux/amd64") == "linux/amd64"
    assert chosen("linux/arm/v7") == "linux/arm/v7"
    assert chosen("linux/arm/v6") == "linux/arm/v6"
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
        chosen("linux/s390x")


def test_what_a_registry_says_is_one_bounded_printable_line() -> None:
    said = explanation(
        Reply(status=403, body=b'{"errors":[{"code":"DENIED","message":"no\\u001b[31m\\n way"}]}')
    )
    assert said == "denied: no [31m  way"
    assert len(explanation(Reply(status=500, body=b'{"message":"%s"}' % (b"x" * 5000)))) <= 500
    assert explanation(Reply(status=502, body=b"<html>")) == "status 502"
    assert isinstance(failure(Reply(status=429), "x"), TooManyRequests)


def test_waiting() -> None:
    assert retry_after({"retry-after": "7"}, 0) == 7
    assert retry_after({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40) == 60
    assert retry_after({"retry-after": "soon"}, 0) is None
    patience = Patience(pause=1, jitter=lambda: 1)
    assert [patience.delay(n) for n in (1, 2, 3, 9)] == [1, 2, 4, 60]
    assert patience.delay(1, 100000) == 60


def test_progress_as_docker_prints_it() -> None:
    digest = Digest.of(b"")
    event = LayerProgress(digest=digest, step=Step.DOWNLOADING, current=50, total=100)
    assert as_docker(event) == {
        "status": "Downloading",
        "progressDetail": {"current": 50, "total": 100},
        "progress": "[=========================>                         ]      50B/100B",
        "id": "e3b0c44298fc",
    }
    assert len(bar(0, 7)) == len(bar(7, 7).replace("7B/7B", "0B/7B"))
    mounted = LayerProgress(digest=digest, step=Step.MOUNTED, detail="a/b")
    assert as_docker(mounted)["status"] == "Mounted from a/b"


def test_the_referrers_tag() -> None:
    assert referrers_tag(Digest("sha512", "a" * 128)) == "sha512-" + "a" * 64


def test_platforms_are_the_same_however_a_machine_is_called() -> None:
    named = Platform(os="linux", architecture="x86_64")
    assert named.normalized() == Platform.parse("linux/amd64")
    assert Platform.parse("linux/amd64").runs(named)
    assert Platform.parse("linux/amd64").selects(named)
    assert Platform(os="linux", architecture="armhf").normalized().variant == "v7"
    assert Platform(os="linux", architecture="mips64").normalized().architecture == "mips64"
