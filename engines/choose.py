"""From a model's name to a running engine, saying what was chosen and why."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from engines.cache import cache_dir, write_atomically
from engines.engine import Engine
from engines.errors import EngineUnavailableError
from engines.model import DEFAULT, Model, find_model

ENGINES = ("openvino", "onnxruntime")
# What graph.py builds; part of the cache key. Raise it when a change there changes a graph.
# It stands here because importing graph.py imports onnx, which a warm start does without.
GRAPH_REVISION = 3

# A cached graph begins with the sha256 of the rest.
_DIGEST = hashlib.sha256().digest_size

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Choice:
    """An engine's name and the reason for it."""

    engine: str
    why: str


def choose_engine(asked: str = "auto") -> Choice:
    """What `auto` stands for on this machine; anything else is taken at its word."""
    if asked == "auto":
        if has_nvidia_gpu():
            return Choice(
                "openvino", "the NVIDIA GPU is not used: this version has no engine for it"
            )
        return Choice("openvino", "there is no NVIDIA GPU here")
    if asked not in ENGINES:
        raise EngineUnavailableError(
            f"engine {asked!r} is unknown; allowed: auto, {', '.join(ENGINES)}"
        )
    return Choice(asked, "asked for")


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver is loaded (Linux) or its tool is installed (anywhere)."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def is_installed(engine: str) -> bool:
    """Whether the engine's runtime can be imported, without importing it."""
    return find_spec(engine) is not None


def load_engine(
    model: str | Path | Model = DEFAULT,
    *,
    card: str | Path | None = None,
    engine: str = "auto",
    precision: str = "auto",
    device: str | None = None,
    batch: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Engine:
    """A ready engine; use it in a `with` block.

    `model` is a shipped model's name, an .onnx file or what `find_model` found, `card` the file's
    card if that is not beside it, `device` an OpenVINO device name. `say` gets a line for what
    takes long. Raises EngineError.
    """
    choice = choose_engine(engine)
    if precision not in PRECISIONS:
        raise EngineUnavailableError(
            f"precision {precision!r} is unknown; allowed: {', '.join(PRECISIONS)}"
        )
    if not is_installed(choice.engine):
        raise EngineUnavailableError(
            f"{choice.engine} is not installed; pip install 'streamseg[{choice.engine}]'"
        )
    if isinstance(model, Model):
        found = model
    else:
        found = find_model(model, Path(card) if card is not None else None)
    graph = wrapped_graph(found, say)
    if choice.engine == "openvino":
        from engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(
            graph,
            found.card,
            device=device or "CPU",
            precision=precision,
            batch=batch,
            why=choice.why,
            cache=cache_dir("openvino"),
        )
    if device is not None and device != "CPU":
        raise EngineUnavailableError(f"{choice.engine} runs on the CPU only, not on {device!r}")
    from engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(graph, found.card, precision=precision, batch=batch, why=choice.why)


def wrapped_graph(model: Model, say: Callable[[str], None] = lambda line: None) -> bytes:
    """The model's graph with pictures in and class ids out, from the cache when it was made before.

    The key holds the network's bytes, those of its weights in files beside it, and the whole
    card: a changed card or retrained weights never meet an old graph.
    """
    network = model.onnx.read_bytes()
    key = hashlib.sha256(network)
    for path in _external_files(model.onnx, network):
        key.update(path.read_bytes())
    key.update(model.card.model_dump_json().encode())
    key.update(str(GRAPH_REVISION).encode())
    folder = cache_dir("graphs")
    kept = folder / f"{key.hexdigest()}.graph" if folder else None
    if kept is not None and (known := _read_kept(kept)) is not None:
        return known
    say(f"preparing {model.card.name} (once)")
    from engines.graph import read_onnx, wrap

    data: bytes = wrap(read_onnx(model.onnx), model.card).SerializeToString()
    if kept is not None:
        with suppress(OSError):  # a full disk costs the next start some time, not this one
            write_atomically(kept, hashlib.sha256(data).digest() + data)
    return data


def _external_files(path: Path, network: bytes) -> list[Path]:
    """The files in which an ONNX keeps weights; most have none, and need not be parsed for it."""
    if b"location" not in network:
        return []
    import onnx

    with suppress(Exception):  # not an ONNX: `wrap` says so
        tensors = onnx.load_model_from_string(network).graph.initializer
        names = {e.value for t in tensors for e in t.external_data if e.key == "location"}
        return [file for name in sorted(names) if (file := path.parent / name).is_file()]
    return []


def _read_kept(path: Path) -> bytes | None:
    """A graph from the cache, or None if it is not there or not what was put there."""
    try:
        digest, data = (whole := path.read_bytes())[:_DIGEST], whole[_DIGEST:]
    except OSError:
        return None
    return data if hashlib.sha256(data).digest() == digest else None
