"""Authentication and uploads as generators: every branch, without a network."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from urllib.parse import parse_qs, urlsplit

import pytest

from sampan.errors import InvalidParameter, SampanError, Unauthorized, Unavailable
from sampan.model.digest import Digest
from sampan.registry.auth import Authenticator
from sampan.registry.challenge import parse
from sampan.registry.credentials import Credentials
from sampan.registry.http import BROKEN, Conversation, Reply, Request
from sampan.registry.upload import Upload, push

URL = "https://r.example/v2/a/manifests/x"
BEARER = 'Bearer realm="https://auth.example/token",service="r.example",scope="repository:a:pull"'
SCOPE = "repository:a:pull"


def refused(*challenges: str, url: str = URL) -> Reply:
    return Reply(status=401, url=url, challenges=challenges)


def answered(**document: object) -> Reply:
    return Reply(status=200, body=json.dumps(document).encode())


def run(conversation: Conversation[str], *replies: Reply) -> tuple[str, list[Request]]:
    """The result of a conversation that is sent ``replies``, and what it requested."""
    requests = []
    try:
        requests.append(next(conversation))
        for reply in replies:
            requests.append(conversation.send(reply))
    except StopIteration as stop:
        return stop.value, requests
    raise AssertionError(f"asks for more: {requests[-1]}")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ('Bearer realm="h,\\"q\\"", scope=a', [("bearer", {"realm": 'h,"q"', "scope": "a"})]),
        (
            'Negotiate, Basic realm="b", charset="UTF-8", Bearer realm="c"',
            [
                ("negotiate", {}),
                ("basic", {"realm": "b", "charset": "UTF-8"}),
                ("bearer", {"realm": "c"}),
            ],
        ),
        ("", []),
        ('="broken', []),
    ],
)
def test_challenges(header: str, expected: list[tuple[str, Mapping[str, str]]]) -> None:
    assert [(item.scheme, item.parameters) for item in parse([header])] == expected


def test_a_token_is_fetched_once_per_scope_and_again_when_it_expires() -> None:
    now = [100.0]
    auth = Authenticator(Credentials(username="u", password="p"), clock=lambda: now[0])
    header, requests = run(
        auth.answer(refused(BEARER), SCOPE), answered(token="t1", expires_in=300)
    )
    assert header == "Bearer t1"
    url = urlsplit(requests[0].url)
    assert (url.netloc, url.path) == ("auth.example", "/token")
    assert parse_qs(url.query) == {"service": ["r.example"], "scope": [SCOPE], "account": ["u"]}
    expected = "Basic " + base64.b64encode(b"u:p").decode()
    assert requests[0].headers["Authorization"] == expected
    assert auth.header(SCOPE) == "Bearer t1"
    assert auth.header("repository:other:pull") == ""
    now[0] += 295
    assert auth.header(SCOPE) == ""


def test_basic_is_answered_once_with_credentials_and_not_without() -> None:
    auth = Authenticator(Credentials(username="u", password="p"))
    header, _ = run(auth.answer(refused('Basic realm="x"'), SCOPE))
    assert header.startswith("Basic ")
    assert auth.header("anything") == header
    assert run(auth.answer(refused('Basic realm="x"'), SCOPE)) == ("", [])
    assert run(Authenticator().answer(refused('Basic realm="x"'), SCOPE)) == ("", [])


def test_an_identity_token_goes_by_oauth2_and_falls_back() -> None:
    auth = Authenticator(Credentials(username="u", identity_token="secret"))
    header, requests = run(
        auth.answer(refused(BEARER), SCOPE), Reply(status=404), answered(access_token="t")
    )
    assert header == "Bearer t"
    assert requests[0].method == "POST"
    assert b"refresh_token=secret" in (requests[0].body or b"")  # type: ignore[operator]
    assert requests[1].method == "GET"


def test_a_refresh_token_is_asked_for_and_kept() -> None:
    auth = Authenticator(Credentials(username="u", password="p"))
    _, requests = run(
        auth.answer(refused(BEARER), "", offline=True), answered(token="t", refresh_token="r")
    )
    assert "offline_token=true" in requests[0].url
    assert auth.refreshed == "r"
    assert "'r'" not in repr(auth)


def test_an_https_registry_cannot_send_the_password_to_a_plain_realm() -> None:
    auth = Authenticator(Credentials(username="u", password="p"))
    plain = BEARER.replace("https://auth", "http://auth")
    _, requests = run(auth.answer(refused(plain), SCOPE), answered(token="t"))
    assert "Authorization" not in requests[0].headers


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=401, body=b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong"}]}'),
        answered(),
        answered(token="a\r\nb"),
        Reply(status=200, body=b"<html>"),
    ],
)
def test_a_realm_that_gives_no_token_is_an_error(reply: Reply) -> None:
    with pytest.raises(Unauthorized):
        run(Authenticator().answer(refused(BEARER), SCOPE), reply)


DIGEST = Digest.of(b"x" * 100)


async def nothing(start: int, end: int) -> AsyncIterator[bytes]:
    yield b"x" * (end - start)


def upload(chunk: int | None = None, source: str = "") -> Conversation[str]:
    return push(
        Upload(
            base="https://r.example/v2/a",
            digest=DIGEST,
            size=100,
            read=nothing,
            chunk=chunk,
            source=source,
        )
    )


def accepted(end: int | None = None, location: str = "/v2/a/blobs/uploads/1?state=s") -> Reply:
    headers = {"location": location} | ({} if end is None else {"range": f"0-{end}"})
    return Reply(status=202, url="https://r.example/v2/a/blobs/uploads/", headers=headers)


DONE = Reply(status=201)


def shape(requests: list[Request]) -> list[tuple[str, str]]:
    return [(item.method, item.headers.get("Content-Range", "")) for item in requests]


def test_a_blob_goes_in_one_request_to_the_location_as_given() -> None:
    mounted, requests = run(upload(), accepted(), DONE)
    assert mounted == ""
    assert requests[1].url == (
        f"https://r.example/v2/a/blobs/uploads/1?state=s&digest=sha256%3A{DIGEST.hex}"
    )
    assert requests[1].length == 100


def test_a_mount_sends_nothing() -> None:
    mounted, requests = run(upload(source="b/c"), DONE)
    assert mounted == "b/c"
    assert requests[0].url.endswith(f"?mount={DIGEST}&from=b%2Fc")


def test_chunks_follow_the_locations_given() -> None:
    replies = (accepted(), accepted(39, "/two"), accepted(79, "/three"), accepted(99, "/four"))
    _, requests = run(upload(chunk=40), *replies, DONE)
    assert shape(requests) == [
        ("POST", ""),
        ("PATCH", "0-39"),
        ("PATCH", "40-79"),
        ("PATCH", "80-99"),
        ("PUT", ""),
    ]
    assert requests[3].url == "https://r.example/three"


def test_a_broken_request_goes_on_where_the_registry_is() -> None:
    status = Reply(status=204, headers={"range": "0-59", "location": "/again"}, url=URL)
    replies = (accepted(), Reply(status=BROKEN), status, accepted(99, "/last"))
    _, requests = run(upload(), *replies, DONE)
    assert shape(requests) == [
        ("POST", ""),
        ("PUT", ""),
        ("GET", ""),
        ("PATCH", "60-99"),
        ("PUT", ""),
    ]


def test_a_lost_session_begins_again() -> None:
    replies = (accepted(), Reply(status=BROKEN), Reply(status=404), accepted(), accepted(99))
    _, requests = run(upload(), *replies, DONE)
    assert [item.method for item in requests] == ["POST", "PUT", "GET", "POST", "PATCH", "PUT"]


def test_a_body_limit_on_the_way_leads_to_chunks() -> None:
    status = Reply(status=204, headers={"range": "0-0"}, url=URL)
    _, requests = run(upload(), accepted(), Reply(status=413), status, accepted(99), DONE)
    assert shape(requests)[3] == ("PATCH", "0-99")


@pytest.mark.parametrize(
    ("replies", "error"),
    [
        ((Reply(status=403),), SampanError),
        ((Reply(status=202),), InvalidParameter),
        ((accepted(location="file:///etc"),), InvalidParameter),
        ((accepted(), Reply(status=400)), InvalidParameter),
        ((accepted(), *(Reply(status=BROKEN), Reply(status=204, url=URL)) * 9), Unavailable),
    ],
)
def test_refusals_and_endless_trouble_end_it(
    replies: tuple[Reply, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        run(upload(), *replies)


def test_a_registry_that_claims_more_than_was_sent_is_not_believed() -> None:
    with pytest.raises(InvalidParameter, match="more than was sent"):
        run(upload(chunk=40), accepted(), accepted(70))
