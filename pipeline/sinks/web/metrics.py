"""The figures as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from pipeline.sinks.web.figures import PERCENTS, Figures
from pipeline.sinks.web.refusals import Refusals
from pipeline.stats import Histogram

CONTENT_TYPE = CONTENT_TYPE_LATEST

# Seconds: twelve steps from a frame of a fast camera to a picture that nobody calls live.
_BOUNDS = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)


class RunCollector(Collector):
    """Made anew from the figures at every scrape, so that the pipeline itself counts nothing."""

    def __init__(
        self, figures: Figures, viewers: Callable[[], dict[str, int]], refusals: Refusals
    ) -> None:
        self._figures = figures
        self._viewers = viewers
        self._refusals = refusals

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        pipeline = figures.pipeline
        yield _counter(
            "streamseg_frames_delivered", "Frames that every file sink has, or that were shown.",
            pipeline.delivered if pipeline else 0,
        )  # fmt: skip
        yield _counters(
            "streamseg_frames_dropped", "Captured frames given up.", "cause", figures.dropped()
        )
        yield _counters(
            "streamseg_frames_lost", "Frames that could not be captured.", "cause", figures.lost()
        )
        yield GaugeMetricFamily(
            "streamseg_fps", "Frames delivered a second, last two seconds.", figures.fps
        )
        latency = figures.latency()
        yield _histogram(latency)
        quantiles = GaugeMetricFamily(
            "streamseg_latency_quantile_seconds",
            "Capture to sink, over the run, within 1%.",
            labels=["quantile"],
        )
        for percent in PERCENTS:
            quantiles.add_metric([f"{percent / 100:g}"], latency.percentile_s(percent))
        yield quantiles
        viewers = GaugeMetricFamily("streamseg_web_viewers", "Who watches.", labels=["transport"])
        for kind, count in self._viewers().items():
            viewers.add_metric([kind], count)
        yield viewers
        yield _counters(
            "streamseg_web_refused",
            "Requests and connections refused.",
            "reason",
            dict(self._refusals.counts),
        )


def exposition(collector: RunCollector) -> bytes:
    """The text of /metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(name, text, value)


def _counters(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, count in counts.items():
        family.add_metric([key], count)
    return family


def _histogram(latency: Histogram) -> Metric:
    """Prometheus' buckets, from ours, which are 1% wide."""
    rows = latency.buckets()
    buckets = [(f"{b:g}", float(sum(n for _, high, n in rows if high <= b))) for b in _BOUNDS]
    total = sum((low + high) / 2 * n for low, high, n in rows)
    family = HistogramMetricFamily("streamseg_latency_seconds", "Capture to sink.")
    family.add_metric([], [*buckets, ("+Inf", float(len(latency)))], sum_value=total)
    return family
