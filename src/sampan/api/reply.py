"""Answers: JSON, nothing, errors, and streams that end when their client goes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable
from contextlib import aclosing
from typing import Any, cast

import msgspec
from aiohttp import web

from sampan.errors import SampanError

log = logging.getLogger("sampan.api")

JSON = "application/json"
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"


def json(value: object, status: int = 200) -> web.Response:
    """A JSON document (with dockerd's newline at its end)."""
    return web.Response(
        body=msgspec.json.encode(value) + b"\n", status=status, headers={"Content-Type": JSON}
    )


def empty(status: int = 204) -> web.Response:
    """No body."""
    return web.Response(status=status)


def text(
    value: str, content_type: str = "text/plain; charset=utf-8", status: int = 200
) -> web.Response:
    """Plain text."""
    headers = {"Content-Type": content_type}
    return web.Response(body=value.encode(), status=status, headers=headers)


def error(message: str, status: int) -> web.Response:
    """An error as every client expects it."""
    if status == 304:
        return web.Response(status=status)
    return json({"message": message}, status)


def failure(problem: BaseException) -> web.Response:
    """The answer to an exception: its own status and sentence, or 500 and a record in the log."""
    if isinstance(problem, SampanError):
        return error(problem.message, problem.http_status)
    log.error("unexpected error in a request", exc_info=problem)
    return error(f"internal error: {type(problem).__name__}; the daemon's log says more", 500)


def stream_headers(content_type: str) -> web.StreamResponse:
    """A response of unknown length, sent in chunks."""
    response = web.StreamResponse(headers={"Content-Type": content_type})
    response.enable_chunked_encoding()
    return response


async def stream(
    request: web.BaseRequest,
    source: AsyncIterable[bytes],
    content_type: str,
    headers: dict[str, str] | None = None,
) -> web.StreamResponse:
    """Send chunks as they come; ``source`` is closed whatever happens.

    Headers go out before the first chunk. An error after that cuts the connection instead of
    ending the body regularly, so that no client takes half an archive for a whole one.
    """
    response = stream_headers(content_type)
    response.headers.update(headers or {})
    async with closing(source):
        await response.prepare(request)
        try:
            async for chunk in source:
                if chunk:
                    await response.write(chunk)
        except Exception as problem:
            if gone(request):
                raise
            log.warning("a stream was cut short: %s", problem)
            abort(request)
            return response
    await response.write_eof()
    return response


async def progress(
    request: web.BaseRequest, source: AsyncIterable[dict[str, Any]]
) -> web.StreamResponse:
    """Send progress messages, one JSON object a line.

    What goes wrong before the first message is an ordinary error; afterwards it is an
    ``errorDetail`` message, as the status has long been sent.
    """
    response = stream_headers(JSON)
    started = False
    async with closing(source):
        try:
            async for message in source:
                if not started:
                    await response.prepare(request)
                    started = True
                await response.write(msgspec.json.encode(message) + b"\r\n")
        except Exception as problem:
            if not started or gone(request):
                raise
            await response.write(msgspec.json.encode(error_message(problem)) + b"\r\n")
    if not started:
        await response.prepare(request)
    await response.write_eof()
    return response


def error_message(problem: Exception) -> dict[str, Any]:
    """An error as a message of a progress stream (both spellings, clients read either)."""
    if not isinstance(problem, SampanError):
        log.error("unexpected error in a stream", exc_info=problem)
        text_ = f"internal error: {type(problem).__name__}; the daemon's log says more"
        return {"errorDetail": {"message": text_}, "error": text_}
    return {"errorDetail": {"message": problem.message}, "error": problem.message}


def gone(request: web.BaseRequest) -> bool:
    """Whether the client is not there any more."""
    return request.transport is None or request.transport.is_closing()


def abort(request: web.BaseRequest) -> None:
    """Cut a connection whose answer cannot be completed."""
    if request.transport is not None:
        request.transport.abort()


def closing(source: object) -> aclosing[Any]:
    """Close an iterable at the end of a ``with``, if it is one that can be closed."""
    return aclosing(cast(Any, source)) if hasattr(source, "aclose") else aclosing(_Nothing())


class _Nothing:
    """What is closed when an iterable has nothing to close."""

    async def aclose(self) -> None:
        return None
