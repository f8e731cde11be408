"""Spans of what the engine does, told to an OpenTelemetry collector; loaded only when configured.

What goes where is OpenTelemetry's own matter (opentelemetry.io/docs/specs/otel/protocol/exporter):
``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` name the collector,
``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_TRACES_SAMPLER`` and the like are read
by its library, which is the extra ``otel``. The protocol is OTLP over HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sampan.errors import Unsupported

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether traces are to be told to anybody. Raises Unsupported for a protocol we lack."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    if not any(environment.get(name) for name in _ENDPOINTS):
        return False
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "")
    if protocol not in ("", "http/protobuf"):
        raise Unsupported(f"traces: OTLP protocol {protocol} is not supported, use http/protobuf")
    return True


class Tracing:
    """A tracer and the way to its collector."""

    def __init__(self, provider: TracerProvider, version: str) -> None:
        """Callers use :meth:`configured`."""
        from opentelemetry.propagate import extract

        self._provider = provider
        self._tracer = provider.get_tracer("sampan", version)
        self._extract = extract

    @classmethod
    def configured(cls, environment: Mapping[str, str], version: str) -> Tracing | None:
        """What the environment asks for, None for nothing.

        Raises Unsupported when the library is missing or the protocol is.
        """
        if not wanted(environment):
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise Unsupported(
                f"traces are configured, but {error.name} is not installed: "
                "install sampan with its extra 'otel'"
            ) from error
        attributes = {SERVICE_VERSION: version}
        if not environment.get("OTEL_SERVICE_NAME"):
            attributes[SERVICE_NAME] = "sampand"
        provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider, version)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, str]) -> Iterator[None]:
        """Something the engine does, part of what is under way; an error raised is told with it."""
        with self._tracer.start_as_current_span(name, attributes=dict(attributes)):
            yield

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """A request being answered, part of its client's trace if it says so (traceparent)."""
        from opentelemetry.trace import SpanKind

        carrier = {key.lower(): value for key, value in headers.items()}
        with self._tracer.start_as_current_span(
            method,
            context=self._extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "url.path": path},
        ) as span:
            yield span

    def close(self) -> None:
        """Tell what has not been told yet. Blocks, for as long as the collector makes it."""
        self._provider.shutdown()


def answered(span: Span, route: str, status: int) -> None:
    """What became of a request."""
    from opentelemetry.trace import Status, StatusCode

    if route:
        span.update_name(route)
        span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
