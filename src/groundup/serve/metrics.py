"""What the server counts, for Prometheus. Reads the engine's load; writes the text that /metrics
answers.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundup.engines.own import Engine

FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
EACH = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Meters:
    """Counters of one server, in a registry of their own, so that two servers of a process do not
    share them.
    """

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "groundup_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.refused = Counter(
            "groundup_refused",
            "Requests refused with 429, since the queue was full.",
            registry=self.registry,
        )
        self.first = Histogram(
            "groundup_time_to_first_token_seconds",
            "From taking a completion to its first token.",
            buckets=FIRST,
            registry=self.registry,
        )
        self.each = Histogram(
            "groundup_time_per_token_seconds",
            "Between tokens of a completion.",
            buckets=EACH,
            registry=self.registry,
        )
        self.registry.register(_Engine(engine))

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _Engine:
    """The engine's own counters, read when they are asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        load = self._engine.load()
        for name, help_, value in (
            ("running", "Completions that are being generated.", load.running),
            ("waiting", "Completions that wait for a slot.", load.waiting),
            ("slots", "Completions that may run at once.", load.slots),
            ("queue", "Completions that may wait.", load.queue),
        ):
            yield GaugeMetricFamily(f"groundup_{name}", help_, value=value)
        yield CounterMetricFamily(
            "groundup_prompt_tokens", "Tokens of prompts that were read.", value=load.prompt_tokens
        )
        yield CounterMetricFamily(
            "groundup_generated_tokens", "Tokens that were generated.", value=load.generated_tokens
        )
        yield CounterMetricFamily("groundup_engine_steps", "Steps of the engine.", value=load.steps)
        finished = CounterMetricFamily(
            "groundup_completions", "Completions that ended, by reason.", labels=["reason"]
        )
        for reason, count in load.finished.items():
            finished.add_metric([reason], count)
        yield finished


class Counted:
    """ASGI middleware that counts answers by route and status; paths that are no route count as
    one, whatever they say.
    """

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app, self._meters = app, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                self._meters.requests.labels(route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted if scope["type"] == "http" else send)
