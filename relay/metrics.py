"""Counters for Prometheus, kept as plain numbers: a message costs two additions.

prometheus-client's own counters take a lock and look labels up, which is more
than the rest of a message's way. So the numbers live here, and a collector
turns them into metrics when somebody asks. No metric names a token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coralmux.protocol.types import RateClass, Role

if TYPE_CHECKING:
    from relay.directory import Directory

_FORWARDED = (RateClass.MESSAGE, RateClass.STREAM, RateClass.KEY_EXCHANGE)


class Traffic:
    """What one role sent in one class."""

    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0


class Metrics:
    """The numbers of this process since it started."""

    def __init__(self) -> None:
        self.forwarded = {role: {kind: Traffic() for kind in _FORWARDED} for role in Role}
        self.refused: Counter[str] = Counter()
        self.auth: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.undelivered = 0
        self.buffer_stalls: Counter[str] = Counter()

    def render(self, directory: Directory, sockets: int) -> bytes:
        """The Prometheus text format."""
        registry = CollectorRegistry()
        registry.register(_Snapshot(self, directory, sockets))
        return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, metrics: Metrics, directory: Directory, sockets: int) -> None:
        self._metrics = metrics
        self._directory = directory
        self._sockets = sockets

    def collect(self) -> Iterator[Metric]:
        metrics, directory = self._metrics, self._directory
        yield GaugeMetricFamily(
            "coralmux_sockets", "Open WebSockets, authenticated or not.", self._sockets
        )
        connections = GaugeMetricFamily(
            "coralmux_connections", "Authenticated connections.", labels=["role"]
        )
        for role, count in directory.connections.items():
            connections.add_metric([role], count)
        yield connections
        yield GaugeMetricFamily(
            "coralmux_pairs", "Tokens with both ends connected.", directory.pairs
        )
        messages = CounterMetricFamily(
            "coralmux_messages", "Messages forwarded.", labels=["direction", "class"]
        )
        octets = CounterMetricFamily(
            "coralmux_bytes", "Payload bytes forwarded.", labels=["direction", "class"]
        )
        for role, classes in metrics.forwarded.items():
            for kind, traffic in classes.items():
                labels = [f"{role}_to_{role.peer}", kind.value]
                messages.add_metric(labels, traffic.messages)
                octets.add_metric(labels, traffic.bytes)
        yield messages
        yield octets
        yield _counter("refused", "Messages refused, by error code.", "reason", metrics.refused)
        yield _counter("auth", "Attempts to log in, by result.", "result", metrics.auth)
        yield _counter(
            "closed",
            "Connections ended, by the relay's close code, the client, or loss.",
            "code",
            metrics.closed,
        )
        yield CounterMetricFamily(
            "coralmux_undelivered",
            "Messages taken but not written before their receiver's connection ended.",
            metrics.undelivered,
        )
        yield _counter(
            "buffer_stalls",
            "Times a sender was made to wait: for a slow reader, or by its allowance.",
            "cause",
            metrics.buffer_stalls,
        )


def _counter(name: str, text: str, label: str, values: Counter[str]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"coralmux_{name}", text, labels=[label])
    for key, count in sorted(values.items()):
        family.add_metric([str(key)], count)
    return family
