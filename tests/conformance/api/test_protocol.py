"""Versions, headers, errors, validation: what every request goes through."""

from __future__ import annotations

import pytest

from sampan.errors import NotFound
from sampan.wire.container import ContainerWaitResponse
from tests.conformance.api.conftest import Server, read_answer, read_chunk, read_head
from tests.conformance.api.fake import IDENTITY, FakeStream


async def test_ping_tells_what_clients_negotiate_from(server: Server) -> None:
    for method, body in (("GET", b"OK"), ("HEAD", b"")):
        answer = await server.ask(method, "/_ping")
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["api-version"] == "1.55"
        assert answer.headers["ostype"] == "linux"
        assert answer.headers["docker-experimental"] == "false"
        assert answer.headers["builder-version"] in ("1", "2")
        assert answer.headers["swarm"] == "inactive"
        assert answer.headers["cache-control"] == "no-cache, no-store, must-revalidate"
        assert answer.headers["server"].startswith("Sampan/")


async def test_versions_nobody_speaks_any_more_are_refused_in_plain_text(server: Server) -> None:
    answer = await server.ask("GET", "/v1.23/info")
    assert (answer.status, answer.body) == (400, (
        b"client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade "
        b"your client to a newer version\n"
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("1.56", "client version 1.56 is too new. Maximum supported API version is 1.55"),
        ("1.2.3", "invalid API version: '1.2.3'"),
    ],
)  # fmt: skip
async def test_versions_out_of_range_are_refused(server: Server, version: str, text: str) -> None:
    answer = await server.ask("GET", f"/v{version}/info")
    assert (answer.status, answer.message) == (400, text)


@pytest.mark.parametrize(
    ("method", "target", "status", "text"),
    [
        ("GET", "/nope", 404, "page not found"),
        ("GET", "/v1.41/nope", 404, "page not found"),
        ("GET", "/containers/json/", 404, "page not found"),
        ("PUT", "/containers/json", 405, "method PUT is not allowed here"),
        ("GET", "/v1.24/configs", 404, "page not found"),
        ("GET", "/containers/x/json", 404, "No such container: x"),
        ("GET", "/containers/json?filters=bad", 400,
         "invalid filter: JSON is malformed: invalid character (byte 0)"),
        ("GET", "/containers/json?filters=%5B%5D", 400,
         "invalid filter: expected a JSON object of lists"),
        ("GET", '/containers/json?filters=%7B"foo":%5B"x"%5D%7D', 400, "invalid filter 'foo'"),
        ("GET", '/containers/json?filters=%7B"id":%5B1%5D%7D', 400,
         "invalid filter 'id': expected a list of strings"),
        ("GET", "/containers/json?limit=abc", 400,
         "invalid value for limit: 'abc' is not a number"),
        ("GET", "/events?since=abc", 400, "invalid value for since: 'abc' is not a Unix timestamp"),
        ("GET", "/containers/a/logs", 400, "Bad parameters: you must choose at least one stream"),
        ("POST", "/containers/a/wait?condition=foo", 400, 'invalid condition: "foo"'),
        ("POST", "/containers/a/resize?h=1", 400, 'invalid resize width "": invalid syntax'),
        ("POST", "/containers/a/rename", 400, "Neither old nor new names may be empty"),
        ("GET", "/containers/a/stats?one-shot=1", 400,
         "cannot have stream=true and one-shot=true"),
        ("GET", "/containers/a/archive", 400, "bad parameter: path cannot be empty"),
        ("GET", "/containers/a/attach/ws", 400, "this endpoint speaks websocket only"),
        ("GET", "/services", 503, 'This node is not a swarm manager. Use "docker swarm init" or '
         '"docker swarm join" to connect this node to swarm and try again.'),
        ("POST", "/swarm/leave", 503, "This node is not part of a swarm"),
        ("GET", "/plugins/a/b/json", 404, 'plugin "a/b" not found'),
        ("GET", "/volumes", 500,
         "internal error: AttributeError; the daemon's log says more"),
    ],
)  # fmt: skip
async def test_errors_are_json_and_say_what_was_wrong(
    server: Server, method: str, target: str, status: int, text: str
) -> None:
    answer = await server.ask(method, target)
    assert (answer.status, answer.message) == (status, text)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["api-version"] == "1.55"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "invalid JSON: got EOF while reading request body"),
        (
            b"{bad",
            "invalid JSON: invalid character 'b' looking for beginning of object key string",
        ),
        (b'{"Image": "a"} x', "unexpected content after JSON"),
        (b"[]", "invalid JSON: expected an object"),
        (b"{}", "config cannot be empty in order to create a container"),
        (b'{"Image": 5}', "invalid JSON: Image: expected `str | null`, got `int`"),
        (b'{"Image": "a\\u0000b"}', "invalid JSON: Image: contains a NUL byte"),
        (b'{"Image": "a", "HostConfig": {"Memory": 9223372036854775808}}',
         "invalid JSON: HostConfig.Memory: number out of range"),
        (b'{"Image": "a", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": 80}]}}}',
         "invalid JSON: HostConfig.PortBindings[...][0].HostPort: expected `str | null`, "
         "got `int`"),
        (b'{"Env": ["a", 1]}', "invalid JSON: Env[1]: expected `str`, got `int`"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "invalid JSON: nested too deeply"),
    ],
)  # fmt: skip
async def test_bad_bodies_are_refused_by_field(server: Server, body: bytes, text: str) -> None:
    headers = "Content-Type: application/json\r\n"
    answer = await server.ask("POST", "/containers/create", body, headers=headers)
    assert (answer.status, answer.message) == (400, text)
    assert server.engine.containers.created == []


async def test_other_media_types_and_oversized_bodies_are_refused(server: Server) -> None:
    answer = await server.ask(
        "POST", "/containers/create", b'{"Image":"a"}', headers="Content-Type: text/plain\r\n"
    )
    assert (answer.status, "Content-Type" in answer.message) == (400, True)
    large = b'{"Image": "' + b"a" * (9 << 20) + b'"}'
    answer = await server.ask("POST", "/containers/create", large)
    assert (answer.status, answer.message) == (
        400,
        "request body too large: at most 8388608 bytes are accepted",
    )


async def test_bodies_mean_what_go_would_read(server: Server) -> None:
    body = {
        "image": "bb",
        "Cmd": "true",
        "Volumes": {"/v": None},
        "NetworkingConfig": {"EndpointsConfig": {"n": None}},
        "hostconfig": {"PortBindings": {"80/tcp": None}, "autoremove": True},
        "Unknown": 1,
    }
    assert (await server.ask("POST", "/containers/create?name=x", body)).status == 201
    ((request, name),) = server.engine.containers.created
    assert (request.image, request.cmd, name) == ("bb", ["true"], "x")
    assert request.volumes == {"/v": {}}
    assert request.host_config is not None
    assert request.host_config.auto_remove is True
    assert request.host_config.port_bindings == {"80/tcp": None}
    assert request.networking_config is not None
    assert set(request.networking_config.endpoints_config or {}) == {"n"}


async def test_not_modified_has_no_body_and_options_is_empty(server: Server) -> None:
    answer = await server.ask("POST", "/containers/running/start")
    assert (answer.status, answer.body) == (304, b"")
    answer = await server.ask("OPTIONS", "/containers/json")
    assert (answer.status, answer.body) == (200, b"")


async def test_answers_have_the_fields_go_never_leaves_out(server: Server) -> None:
    answer = (await server.ask("GET", "/containers/a/json")).json
    assert answer["Config"]["Entrypoint"] is None
    assert answer["HostConfig"]["Binds"] is None
    assert answer["HostConfig"]["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert answer["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert answer["Mounts"] == []
    assert "Healthcheck" not in answer["Config"]


async def test_old_versions_see_what_they_saw(server: Server) -> None:
    old = (await server.ask("GET", "/v1.41/containers/a/json")).json
    new = (await server.ask("GET", "/v1.52/containers/a/json")).json
    assert old["NetworkSettings"]["IPAddress"] == "10.0.0.2"
    assert "IPAddress" not in new["NetworkSettings"]
    networks = old["NetworkSettings"]["Networks"]
    assert networks["own"]["Aliases"] == ["a", IDENTITY[:12]]
    assert networks["bridge"]["Aliases"] == ["a"]
    # not connected: clients of old take the missing name for a sign to connect it
    assert networks["other"]["Aliases"] == ["a"]
    assert new["NetworkSettings"]["Networks"]["own"]["Aliases"] == ["a"]
    image = (await server.ask("GET", "/v1.43/images/x/y:1/json")).json
    assert (image["VirtualSize"], image["Config"]["Hostname"]) == (5, "")
    assert image["ContainerConfig"]["Cmd"] == ["|1", "a=b", "/bin/sh", "-c", "echo $a"]
    assert "VirtualSize" not in (await server.ask("GET", "/v1.44/images/x/json")).json
    (summary,) = (await server.ask("GET", "/v1.42/images/json")).json
    assert summary["RepoTags"] == ["<none>:<none>"]
    info = (await server.ask("GET", "/v1.41/info")).json
    assert info["RuncCommit"] == {"ID": "", "Expected": ""}


async def test_a_mac_address_for_the_container_goes_to_its_endpoint(server: Server) -> None:
    body = {"Image": "a", "MacAddress": "02:00:00:00:00:01"}
    answer = await server.ask("POST", "/v1.51/containers/create", body)
    assert (answer.status, len(answer.json["Warnings"])) == (201, 1)
    assert (await server.ask("POST", "/v1.52/containers/create", body)).status == 201
    (old, _), (new, _) = server.engine.containers.created
    assert old.networking_config is not None
    endpoints = old.networking_config.endpoints_config
    assert endpoints is not None
    assert endpoints["bridge"].mac_address == "02:00:00:00:00:01"
    assert new.networking_config is None


async def test_wait_sends_its_headers_before_the_container_ends(server: Server) -> None:
    reader, writer = await server.open("POST", "/v1.41/containers/a/wait")
    status, _ = await read_head(reader)
    assert status == 200
    exit_ = server.engine.containers.exit
    assert exit_ is not None
    exit_.set_result(ContainerWaitResponse(status_code=3))
    assert await read_chunk(reader) == b'{"StatusCode":3}\n'
    writer.close()


async def test_what_changes_something_runs_to_its_end(server: Server) -> None:
    _, writer = await server.open("POST", "/containers/slow/start")
    while not server.daemon.background:
        await server.ask("GET", "/_ping")
    writer.transport.abort()
    await server.ask("GET", "/_ping")
    server.engine.containers.start_gate.set()
    await server.daemon.drain(5)
    assert server.engine.containers.started == ["slow"]


async def test_expect_continue_is_answered(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(
        b"POST /images/load HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Transfer-Encoding: chunked\r\nContent-Type: application/x-tar\r\n\r\n"
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
    answer = await read_answer(reader)
    assert (answer.status, answer.json) == (200, {"stream": "7"})
    assert server.engine.images.received == b"abcdefg"
    writer.close()


async def test_an_archive_that_fails_is_cut_not_ended(server: Server) -> None:
    server.engine.containers.stream = FakeStream(b"abc", OSError("disk on fire"))
    reader, writer = await server.open("GET", "/containers/a/export")
    await read_head(reader)
    rest = await reader.read()
    assert rest in (b"", b"3\r\nabc\r\n")
    writer.close()


async def test_progress_fails_as_an_answer_first_and_as_a_message_later(server: Server) -> None:
    images = server.engine.images
    images.progress = [NotFound("no such manifest")]
    answer = await server.ask("POST", "/images/create?fromImage=a/b&tag=1")
    assert (answer.status, answer.message) == (404, "no such manifest")
    images.progress = [{"status": "Pulling"}, NotFound("gone")]
    answer = await server.ask("POST", "/images/create?fromImage=a/b")
    assert answer.status == 200
    assert answer.body.splitlines() == [
        b'{"status":"Pulling"}',
        b'{"errorDetail":{"message":"gone"},"error":"gone"}',
    ]
    assert images.pulled["all_tags"] is True


async def test_credentials_are_decoded_and_never_repeated(server: Server) -> None:
    images = server.engine.images
    auth = "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InNlY3JldCJ9"
    await server.ask("POST", "/images/create?fromImage=a", headers=f"X-Registry-Auth: {auth}\r\n")
    assert images.pulled["auth"].username == "u"  # type: ignore[attr-defined]
    assert "secret" not in repr(images.pulled["auth"])


@pytest.mark.parametrize("header", ["c2VjcmV0", "placeholder", "e30", "eyJ1c2VybmFtZSI6MX0="])
async def test_credentials_that_cannot_be_read_are_none(server: Server, header: str) -> None:
    answer = await server.ask(
        "POST", "/images/create?fromImage=a", headers=f"X-Registry-Auth: {header}\r\n"
    )
    assert answer.status == 200
    auth = server.engine.images.pulled["auth"]
    assert auth is None or not auth.username  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("version", "accept", "media_type", "before"),
    [
        ("1.51", "application/x-ndjson", "application/json", b'{"status":"start","id":"'),
        ("1.52", "application/x-ndjson", "application/x-ndjson", b'{"Type":"container"'),
        ("1.52", "application/json-seq", "application/json-seq", b'\x1e{"Type":"container"'),
        ("1.53", "application/jsonl", "application/jsonl", b'{"Type":"container"'),
    ],
)
async def test_events_come_in_the_form_asked_for(
    server: Server, version: str, accept: str, media_type: str, before: bytes
) -> None:
    reader, writer = await server.open("GET", f"/v{version}/events", f"Accept: {accept}\r\n")
    _, headers = await read_head(reader)
    assert headers["content-type"] == media_type
    server.engine.events.send("start")
    assert (await read_chunk(reader)).startswith(before)
    writer.close()
    await server.engine.events.ended.wait()


async def test_metrics_count_by_route(server: Server) -> None:
    await server.ask("GET", "/containers/a/json")
    await server.ask("GET", "/containers/b/json")
    lines = list(server.daemon.metrics.lines())
    expected = 'count{method="GET",route="/containers/{name}/json"} 2'
    assert any(line.endswith(expected) for line in lines)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"GET /_ping HTTP/9.9\r\nHost: x\r\n\r\n", ""),
        (b"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
         b"Transfer-Encoding: chunked\r\n\r\nzzz\r\n{", "Invalid character in chunk size"),
    ],
)  # fmt: skip
async def test_what_is_not_http_is_answered_without_a_traceback(
    server: Server, sent: bytes, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await server.connect()
    writer.write(sent)
    answer = await read_answer(reader)
    assert answer.status == 400
    assert text in answer.message
    writer.close()
    assert (await server.ask("GET", "/_ping")).status == 200
    assert "Traceback" not in caplog.text
    assert [record.exc_info for record in caplog.records if record.exc_info] == []


async def test_a_body_cut_off_is_no_fault_of_ours(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for target in ("/containers/create", "/build", "/images/load", "/auth"):
        _, writer = await server.connect()
        writer.write(
            f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            "Content-Length: 100\r\n\r\n{".encode()
        )
        await writer.drain()
        writer.close()
    assert (await server.ask("GET", "/_ping")).status == 200
    assert [record.exc_info for record in caplog.records if record.exc_info] == []


async def test_a_content_type_given_twice_is_the_first(server: Server) -> None:
    """bollard's habit, which Go's server bears. A body that reads like a request stays whole."""
    images = server.engine.images
    twice = b"Content-Type: application/x-tar\r\nContent-Type: application/json\r\n"
    body = b"POST /x HTTP/1.1\r\n" + twice + b"\r\n"
    head = b"POST /images/load HTTP/1.1\r\nHost: x\r\n" + twice
    reader, writer = await server.connect()
    for count in (1, 2):
        writer.write(head + f"Content-Length: {len(body)}\r\n\r\n".encode())
        await images.asked.wait()
        images.asked.clear()
        writer.write(body)
        answer = await read_answer(reader)
        assert (answer.status, images.received) == (200, body * count)
    writer.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\n" + twice + b"\r\n")
    assert (await read_head(reader))[0] == 200
    writer.close()
