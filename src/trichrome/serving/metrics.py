"""What a server tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one server; a registry of its own, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "trichrome_requests", "Answered.", ("method", "path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "trichrome_request_seconds",
            "From the first byte to the last.",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("trichrome_requests_in_flight", "Not answered yet.", registry=self.registry)
        self._waiting = Gauge("trichrome_queue_tokens", "Waiting for the encoder.", registry=self.registry)
        self._texts = Counter("trichrome_texts", "Encoded.", registry=self.registry)
        self._tokens = Counter("trichrome_tokens", "Encoded.", registry=self.registry)
        self._padded = Counter(
            "trichrome_padded_tokens", "Encoded, padding included.", registry=self.registry
        )
        self._cut = Counter("trichrome_truncated_texts", "Cut to the model's length.", registry=self.registry)
        self._batch = Histogram(
            "trichrome_batch_texts",
            "Texts of a forward pass.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=self.registry,
        )
        self._pass = Histogram(
            "trichrome_batch_seconds", "Of a forward pass.", buckets=_SECONDS, registry=self.registry
        )

    def waiting(self, tokens: int) -> None:
        """So many tokens wait now."""
        self._waiting.set(tokens)

    def cut(self, texts: int) -> None:
        """So many texts were cut."""
        self._cut.inc(texts)

    def passed(self, texts: int, tokens: int, padded: int, seconds: float) -> None:
        """A forward pass was made."""
        self._texts.inc(texts)
        self._tokens.inc(tokens)
        self._padded.inc(padded)
        self._batch.observe(texts)
        self._pass.observe(seconds)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)
