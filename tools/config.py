"""What a run is told to do: from a YAML file, from the command line, or both."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from engines.errors import RefineError
from engines.refine import parse_refine
from pipeline.sinks.protocols import is_stream
from pipeline.sinks.web.address import parse_address
from tools.names import is_for_each
from tools.web import DEFAULT_ADDRESS


class RunConfig(BaseModel):
    """The options of `streamseg run` by their long names; configs/runs/ has examples."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    source: list[str] = Field(min_length=1)
    output: list[str] = Field(default_factory=list)
    mask: str | None = None
    stats: str | None = None
    rle: bool = False
    model: str = "voc"
    card: str | None = None
    weights: str | None = None
    size: tuple[int, int] | None = None
    engine: Literal["auto", "tensorrt", "openvino", "onnxruntime", "torch"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    device: str | None = None
    decoder: Literal["cpu", "cuda"] = "cpu"
    refine: str = "none"
    every: int = Field(default=1, ge=1, le=30)
    overlay: float = Field(default=0.5, ge=0, le=1)
    classes: list[str] | None = Field(default=None, min_length=1)
    legend: bool = False
    contours: bool = False
    smooth: bool = False
    show: bool = False
    mosaic: bool = False
    encoder: str = "auto"
    quality: int = Field(default=23, ge=0, le=51)
    start: float = Field(default=0.0, ge=0)
    duration: float | None = Field(default=None, gt=0)
    max_frames: int | None = Field(default=None, ge=1)
    fps: float = Field(default=25.0, gt=0, le=1000)
    max_latency: float | None = Field(default=None, gt=0)
    reconnect: str = Field(default="auto", pattern=r"^(auto|never|forever|[0-9]{1,6})$")
    open_timeout: float = Field(default=10.0, gt=0)
    stall_timeout: float | None = Field(default=None, gt=0)
    rtsp_transport: Literal["auto", "tcp", "udp"] = "auto"
    camera_size: tuple[int, int] | None = None
    camera_fps: float | None = Field(default=None, gt=0, le=1000)
    web: str | None = None
    web_token: str | None = Field(default=None, repr=False)
    report: str | None = None
    trace: str | None = None
    force: bool = False
    quiet: bool = False

    @field_validator("source", "output", mode="before")
    @classmethod
    def _one_needs_no_list(cls, value: Any) -> Any:
        """A comma may be part of a file's name."""
        return [value] if isinstance(value, str) else value

    @field_validator("source", mode="before")
    @classmethod
    def _cameras_by_number(cls, value: Any) -> Any:
        """In YAML a camera's number needs no quotes."""
        many = value if isinstance(value, list) else [value]
        return [str(one) if type(one) is int else one for one in many]

    @field_validator("source")
    @classmethod
    def _named(cls, value: list[str]) -> list[str]:
        if not all(value):
            raise ValueError("a source has no name")
        return value

    @field_validator("refine")
    @classmethod
    def _known_refinement(cls, value: str) -> str:
        """What is wrong with it shows before anything is opened."""
        try:
            parse_refine(value)
        except RefineError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("web", mode="before")
    @classmethod
    def _on_this_machine(cls, value: Any) -> Any:
        """`web: true` is `--web` alone."""
        return DEFAULT_ADDRESS if value is True else value

    @field_validator("web")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        """What is wrong with it shows before anything is opened."""
        if value is not None:
            parse_address(value)
        return value

    @field_validator("reconnect", mode="before")
    @classmethod
    def _written_as_a_number(cls, value: Any) -> Any:
        """In YAML a number of attempts needs no quotes."""
        return str(value) if type(value) is int else value

    @field_validator("size", "camera_size", mode="before")
    @classmethod
    def _height_x_width(cls, value: Any) -> Any:
        """As the command line has it: 512x1024."""
        return parse_size(value) if isinstance(value, str) else value

    @field_validator("classes", mode="before")
    @classmethod
    def _named_classes(cls, value: Any) -> Any:
        """Separated by commas, on the command line as in YAML."""
        if not isinstance(value, str):
            return value
        return [name.strip() for name in value.split(",") if name.strip()]


def parse_size(text: str) -> tuple[int, int]:
    """(H, W) in pixels from `HxW`; raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    if not found or not all(1 <= int(length) <= 16384 for length in found.groups()):
        raise ValueError("should be height x width, such as 512x1024")
    return int(found[1]), int(found[2])


def size_option(text: str | None, option: str = "--size") -> tuple[int, int] | None:
    """(H, W) of `option`, for commands without a config; raises typer.BadParameter."""
    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}, got {text!r}") from None


def merge(config: Path | None, given: dict[str, Any]) -> RunConfig:
    """The file's values, overruled by those given on the command line (None means not given).

    Raises typer.BadParameter, exit code 2, naming the key and what it may be.
    """
    values: dict[str, Any] = read_yaml(config) if config is not None else {}
    values.update({key: value for key, value in given.items() if _is_given(key, given)})
    if values.get("source") in (None, []):
        raise typer.BadParameter(
            "name a SOURCE: a video file, an image, a folder, a glob, a camera or a URL"
        )
    try:
        ask = RunConfig.model_validate(values)
    except ValidationError as error:
        raise typer.BadParameter(
            "; ".join(_fault(e, given, config) for e in error.errors())
        ) from None
    if ask.rle and ask.stats is None:
        raise typer.BadParameter("--rle adds masks to statistics; name their file with --stats")
    if ask.web_token is not None and ask.web is None:
        raise typer.BadParameter("--web-token guards the web page; ask for the page with --web")
    if fault := _fault_of_several(ask):
        raise typer.BadParameter(fault)
    return ask


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML file; raises typer.BadParameter with the line that is at fault."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"config {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"config {path}: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise typer.BadParameter(f"config {path} holds no keys; configs/runs/ has examples")
    return {str(key).replace("-", "_"): value for key, value in data.items()}


def _is_given(key: str, given: dict[str, Any]) -> bool:
    """Whether the command line has the option; one that may be repeated is [] if it has not."""
    return given.get(key) not in (None, [])


def _fault_of_several(ask: RunConfig) -> str:
    """What a run of several sources cannot do as it was asked for; empty if it can."""
    if ask.report is not None and is_for_each(ask.report):
        return f"--report {ask.report}: one file tells of all sources; name it without braces"
    if ask.mosaic and not (ask.show or ask.web is not None):
        return "--mosaic is a picture to be looked at; add --show or --web"
    count = len(ask.source)
    if count == 1:
        return ""
    if (ask.show or ask.web is not None) and not ask.mosaic:
        option = "--show" if ask.show else "--web"
        return f"{option} shows one picture, not {count} sources'; --mosaic makes one of them"
    options: list[tuple[str, str | None]] = [("-o", target) for target in ask.output]
    options += [("--mask", ask.mask), ("--stats", ask.stats), ("--trace", ask.trace)]
    for option, target in options:
        if target is not None and not is_for_each(target):
            return (
                f"{option} {target}: {count} sources cannot share it; put {{name}} or {{index}} "
                f"where their names differ, such as {_with_name(target)}"
            )
    return ""


def _with_name(target: str) -> str:
    """How a user may have meant it."""
    if is_stream(target) or target.endswith("/"):
        return f"{target.rstrip('/')}/{{name}}"
    path = Path(target)
    if "%" in path.name or not path.suffix:
        return f"{path}/{{name}}/" if not path.suffix else f"{path.parent / '{name}' / path.name}"
    return f"{path.with_name('{name}' + path.suffix)}"


def _fault(error: Any, given: dict[str, Any], config: Path | None) -> str:
    key = str(error["loc"][0]) if error["loc"] else "config"
    if error["type"] == "extra_forbidden":
        names = list(RunConfig.model_fields)
        near = get_close_matches(key, names, n=1, cutoff=0.75)
        hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(names)}"
        return f"{config}: {key} is no option; {hint}"
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "should")
    where = f"--{key.replace('_', '-')}" if _is_given(key, given) else f"{config}: {key}"
    return f"{where}: {message}, got {error['input']!r}"
