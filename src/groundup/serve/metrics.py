"""Counters of the server in Prometheus' format, for GET /metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from groundup.engines.own import Engine

FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class ServerMetrics:
    """Metrics of one server.

    The registry is not the global one, so two servers in one process count separately.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.registry = registry = CollectorRegistry()
        options: dict[str, Any] = {"namespace": "groundup", "registry": registry}
        self.responses = Counter("requests", "Requests answered.", ["route", "status"], **options)
        words = "Requests refused with 429, since the queue was full."
        self.refused = Counter("refused", words, **options)
        name, words = "time_to_first_token_seconds", "From taking a completion to its first token."
        self.time_to_first_token = Histogram(name, words, buckets=FIRST_TOKEN_SECONDS, **options)
        name, words = "time_per_token_seconds", "Between tokens of a completion."
        self.time_per_token = Histogram(name, words, buckets=TOKEN_SECONDS, **options)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the engine's own counters; the registry calls this for each scrape."""
        stats = self._engine.stats()
        gauge, counter = GaugeMetricFamily, CounterMetricFamily
        for family, name, documentation, value in (
            (gauge, "running", "Completions that are being generated.", stats.running),
            (gauge, "waiting", "Completions that wait for a slot.", stats.waiting),
            (gauge, "slots", "Completions that may run at once.", stats.slots),
            (gauge, "queue", "Completions that may wait.", stats.queue),
            (counter, "prompt_tokens", "Tokens of prompts that were read.", stats.prompt_tokens),
            (counter, "generated_tokens", "Tokens that were generated.", stats.generated_tokens),
            (counter, "engine_steps", "Steps of the engine.", stats.steps),
        ):
            yield family(f"groundup_{name}", documentation, value=value)
        words = "Completions that ended, by reason."
        finished = CounterMetricFamily("groundup_completions", words, labels=["reason"])
        for reason, count in stats.finished.items():
            finished.add_metric([reason], count)
        yield finished
