"""Results made by hand, whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest

from tools.bench.result import (
    Live,
    Machine,
    Peak,
    Probe,
    Result,
    Row,
    Series,
    Settings,
    Span,
    Timeline,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make_live(fps=30.0, p50=(20.0, 21.0, 22.0), missed=(0.0, 0.0, 1.0)):
    return Live(
        fps=fps,
        frames=270,
        missed=3,
        missed_percent=Series.of(missed),
        offered_fps=Series.of([fps] * 3),
        latency_ms={"p50": 21.0, "p90": 25.0, "p99": 30.0, "p99.9": 31.0, "max": 31.0},
        p50_ms=Series.of(p50),
        p99_ms=Series.of([30.0, 30.1, 30.2]),
        jitter_ms=Series.of([1.0, 1.1, 1.2]),
        distribution=[(19.9, 20.1, 100), (24.9, 25.2, 150), (30.7, 31.0, 17)],
    )


def make_row(model="voc", fps=(40.0, 41.0, 42.0), **over):
    values = {
        "model": model,
        "size": "289x513",
        "batch": 1,
        "engine": "openvino",
        "precision": "fp32",
        "version": "2026.4",
        "device": "CPU",
        "rates": {"engine": Series.of(fps), "synthetic": Series.of([38.0, 39.0, 40.0])},
        "cpu_ms": {"engine": Series.of([50.0, 50.1, 50.2])},
        "ratios": {"synthetic/engine": Series.of([0.94, 0.95, 0.96])},
        "stages": {"synthetic": [{"name": "infer", "frames": 3, "busy_ms": 1.0}]},
        "bottleneck": {"synthetic": {"stage": "infer", "fps_limit": 90.0, "advice": "none"}},
        "live": [make_live()],
        "peak": Peak(
            fps=Series.of([35.0, 36.0, 37.0]),
            probes=[
                Probe(round=1, fps=36, missed_percent=0, delivered_fps=36, sustained=True),
            ],
        ),
    }
    return Row(**{**values, **over})


def make_result(*rows, **over):
    machine = Machine(
        cpu="A <fast> & cheap CPU",
        cores=2,
        memory_gb=8.0,
        system="Linux",
        python="3.11",
        gpus=["A GPU"],
        driver="550",
        versions={"numpy": "2.0", "onnxruntime": None},
        load_before=[0.1, 0.2, 0.3],
        load_after=[2.0, 1.0, 0.5],
        others_cpu_percent=over.pop("others", 3.0),
    )
    settings = Settings(
        source="street.mp4",
        picture="720x1280",
        seconds=3,
        warmup_s=0.5,
        rounds=3,
        rates=[10, 30, 60],
        parts=["engine"],
    )
    spans = [
        Span(row="capture", kind="work", frame=0, begin_ms=0, end_ms=2),
        Span(row="capture", kind="wait", begin_ms=2, end_ms=5),
        Span(row="network", kind="flight", frame=0, begin_ms=2, end_ms=5),
        Span(row="network", kind="flight", frame=1, begin_ms=3, end_ms=7),
    ]
    values = {
        "made": "2026-01-01T00:00:00+00:00",
        "streamseg": "0.1.0",
        "machine": machine,
        "settings": settings,
        "rounds_done": 3,
        "rows": list(rows or [make_row()]),
        "timeline": Timeline(title="voc", spans=spans),
    }
    return Result(**{**values, **over})
