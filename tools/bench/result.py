"""What a benchmark found, as its JSON has it; docs/bench.md explains every key."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tools.errors import ToolError

KIND: Literal["streamseg bench"] = "streamseg bench"


class _Part(BaseModel):
    # A file of a later version may have keys that this one does not know.
    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class Series(_Part):
    """One figure of each round, and what they come to."""

    values: list[float]
    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Series:
        """Of at least one value."""
        rounded = [round(value, 4) for value in values]
        return cls(
            values=rounded,
            median=round(statistics.median(rounded), 4),
            min=min(rounded),
            max=max(rounded),
        )


class Live(_Part):
    """One fixed rate of a live source."""

    fps: float
    frames: int
    missed: int
    missed_percent: Series
    offered_fps: Series
    latency_ms: dict[str, float]
    p50_ms: Series
    p99_ms: Series
    jitter_ms: Series
    distribution: list[tuple[float, float, int]]


class Probe(_Part):
    """One try of the search for the peak rate."""

    round: int
    fps: float
    missed_percent: float
    delivered_fps: float
    sustained: bool


class Peak(_Part):
    """The highest rate that a live source may have."""

    fps: Series
    probes: list[Probe]


class Row(_Part):
    """One combination of model, size, batch, engine and precision."""

    model: str
    size: str | None = None
    batch: int
    engine: str
    precision: str
    version: str = ""
    device: str = ""
    why: str = ""
    asked: dict[str, str] = Field(default_factory=dict)
    error: str | None = None
    load_s: float | None = None
    rates: dict[str, Series] = Field(default_factory=dict)
    cpu_ms: dict[str, Series] = Field(default_factory=dict)
    ratios: dict[str, Series] = Field(default_factory=dict)
    stages: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    bottleneck: dict[str, dict[str, Any]] = Field(default_factory=dict)
    live: list[Live] = Field(default_factory=list)
    peak: Peak | None = None

    @property
    def title(self) -> str:
        """What was measured, for people and to match rows of two files by."""
        size = f" {self.size}" if self.size else ""
        batch = f", batch {self.batch}" if self.batch != 1 else ""
        return f"{self.model}{size}, {self.engine} {self.precision}{batch}"


class Machine(_Part):
    """Where it was measured, and who else was at work there."""

    cpu: str
    cores: int
    memory_gb: float | None = None
    system: str
    python: str
    gpus: list[str] = Field(default_factory=list)
    driver: str | None = None
    versions: dict[str, str | None] = Field(default_factory=dict)
    load_before: list[float] | None = None
    load_after: list[float] | None = None
    others_cpu_percent: float | None = None


class Settings(_Part):
    """How it was measured."""

    source: str | None
    picture: str
    seconds: float
    warmup_s: float
    rounds: int
    rates: list[float]
    parts: list[str]


class Span(_Part):
    """One thing that a thread did in the traced run."""

    row: str
    kind: Literal["work", "wait", "flight"]
    frame: int | None = None
    begin_ms: float
    end_ms: float


class Timeline(_Part):
    """A part of one traced run, in the steady state."""

    title: str
    spans: list[Span]


class Result(_Part):
    """A whole benchmark."""

    schema_: int = Field(alias="schema", default=1, ge=1)
    kind: Literal["streamseg bench"] = KIND
    made: str
    streamseg: str
    machine: Machine
    settings: Settings
    interrupted: bool = False
    rounds_done: int = 0
    rows: list[Row] = Field(default_factory=list)
    timeline: Timeline | None = None

    def to_json(self) -> str:
        """As the file has it."""
        data = self.model_dump(mode="json", by_alias=True)
        return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def read_result(path: Path) -> Result:
    """The benchmark in a file; raises ToolError with one line that says why it is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"{path} cannot be read: {error}") from None
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ToolError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise ToolError(f"{path} is not a benchmark; `streamseg bench --json` writes those")
    if data.get("schema") != 1:
        raise ToolError(
            f"{path} has schema {data.get('schema')!r}, and this streamseg knows schema 1; "
            "compare it with the version that wrote it"
        )
    try:
        return Result.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ToolError(f"{path}: {where}: {first['msg']}") from None
