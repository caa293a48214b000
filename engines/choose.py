"""From a model's name to a running engine, saying what was chosen and why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from engines.cache import cache_dir
from engines.engine import Engine
from engines.errors import EngineUnavailableError, one_line
from engines.model import DEFAULT, PLAN_SUFFIX, Model, find_model
from engines.refine import Refine, describe, parse_refine, refined_card
from engines.wrapped import wrapped_graph

ENGINES = ("tensorrt", "openvino", "onnxruntime", "torch")
_NEEDED = {
    "tensorrt": ("tensorrt", "pycuda"),
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime",),
    "torch": ("torch",),
}
# The extra that brings it, where that is called otherwise.
_EXTRAS = {"torch": "models"}

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


@dataclass(frozen=True)
class Choice:
    """An engine's name and the reason for it."""

    engine: str
    why: str


def choose_engine(asked: str = "auto") -> Choice:
    """What `auto` stands for on this machine; anything else is taken at its word."""
    if asked != "auto":
        if asked not in ENGINES:
            raise EngineUnavailableError(
                f"engine {asked!r} is unknown; allowed: auto, {', '.join(ENGINES)}"
            )
        return Choice(asked, "asked for")
    if not has_nvidia_gpu():
        return Choice("openvino", "there is no NVIDIA GPU here")
    missing = [name for name in _NEEDED["tensorrt"] if not _can_import(name)]
    if missing:
        return Choice(
            "openvino",
            f"the NVIDIA GPU is not used: {' and '.join(missing)} is missing, "
            "`streamseg doctor` says how to install it",
        )
    return Choice("tensorrt", "there is an NVIDIA GPU")


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver is loaded (Linux) or its tool is installed (anywhere)."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def is_installed(engine: str) -> bool:
    """Whether all that the engine needs can be imported, without importing it."""
    return all(_can_import(name) for name in _NEEDED[engine])


def _can_import(name: str) -> bool:
    # A folder of type stubs makes a namespace of the same name, which has no origin.
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def load_engine(
    model: str | Path | Model = DEFAULT,
    *,
    card: str | Path | None = None,
    engine: str = "auto",
    precision: str = "auto",
    device: str | None = None,
    batch: int = 1,
    weights: str | None = None,
    size: tuple[int, int] | None = None,
    refine: str | Refine | None = None,
    say: Callable[[str], None] = lambda line: None,
    watch: Callable[[str, float | None], bool] = lambda phase, share: True,
) -> Engine:
    """A ready engine; use it in a `with` block.

    `model` is a name from `streamseg models`, an .onnx or .plan file or what `find_model` found,
    `card` the file's card if that is not beside it, `device` an OpenVINO device name or, for
    TensorRT and torch, a GPU's number (torch also takes cpu). `weights` and `size` (H, W) are
    `find_model`'s. `refine` is what `--refine` takes (engines/refine.py); the engine's card then
    says what size it takes and gives.
    `say` gets a line for what takes long; `watch` gets phase and share of a TensorRT build and
    answers whether to go on. Raises EngineError.
    """
    choice = choose_engine(engine)
    if precision not in PRECISIONS:
        raise EngineUnavailableError(
            f"precision {precision!r} is unknown; allowed: {', '.join(PRECISIONS)}"
        )
    if not is_installed(choice.engine):
        extra = _EXTRAS.get(choice.engine, choice.engine)
        raise EngineUnavailableError(
            f"{choice.engine} is not installed; pip install 'streamseg[{extra}]'"
        )
    wanted = parse_refine(refine) if isinstance(refine, str) else refine
    if isinstance(model, Model):
        found = model
    else:
        path = Path(card) if card is not None else None
        exported = choice.engine != "torch"
        found = find_model(model, path, say, weights=weights, size=size, export=exported)
    if found.file.suffix == PLAN_SUFFIX and choice.engine != "tensorrt":
        raise EngineUnavailableError(
            f"{found.file} is a TensorRT plan, which {choice.engine} cannot run ({choice.why})"
        )
    if choice.engine == "tensorrt":
        return _load_tensorrt(found, precision, device, batch, wanted, choice.why, say, watch)
    if choice.engine == "torch":
        return _load_torch(found, precision, device, batch, wanted, choice.why)
    found, precision = _for_cpu(found, precision, batch)
    taken = refined_card(found.card, wanted)
    graph = wrapped_graph(found, say=say, refine=wanted)
    if choice.engine == "openvino":
        from engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(
            graph,
            taken,
            device=device or "CPU",
            precision=precision,
            batch=batch,
            why=choice.why,
            cache=cache_dir("openvino"),
            refine=describe(wanted),
        )
    if device is not None and device != "CPU":
        raise EngineUnavailableError(f"{choice.engine} runs on the CPU only, not on {device!r}")
    from engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(
        graph,
        taken,
        precision=precision,
        batch=batch,
        why=choice.why,
        refine=describe(wanted),
    )


def _for_cpu(model: Model, precision: str, batch: int) -> tuple[Model, str]:
    """The model's INT8 form, where its card names one and nobody asks for another precision; and
    the precision that is left to choose.
    """
    if precision not in ("auto", "int8"):
        return model, precision
    if model.card.is_int8:
        return model, "auto"
    if model.card.int8 is not None:
        quantized = find_model(model.file.parent / model.card.int8)
        if quantized.card.input == model.card.input and batch == 1:
            return quantized, "auto"
        want = quantized.card.input
        why = f"takes one picture of {want.height}x{want.width} at a time"
    else:
        why = "is not here: streamseg build MODEL --precision int8 --calibrate VIDEO makes it"
    if precision == "int8":
        raise EngineUnavailableError(f"{model.card.name} in INT8 {why}")
    return model, precision


def _load_torch(
    model: Model, precision: str, device: str | None, batch: int, refine: Refine | None, why: str
) -> Engine:
    if refine is not None:
        raise EngineUnavailableError(
            f"--refine {refine.method} is made of ONNX nodes, which torch does not run; take "
            "another engine, or --refine none"
        )
    if precision == "int8" or model.card.is_int8:
        raise EngineUnavailableError(
            "INT8 is for openvino and onnxruntime; with torch take fp16 on a GPU, else fp32 or bf16"
        )
    try:
        from engines.torch_engine import load_torch
    except ImportError as error:
        raise EngineUnavailableError(
            f"torch cannot be imported ({one_line(error)}); pip install 'streamseg[models]'"
        ) from None
    return load_torch(model, device=device, precision=precision, batch=batch, why=why)


def _load_tensorrt(
    model: Model,
    precision: str,
    device: str | None,
    batch: int,
    refine: Refine | None,
    why: str,
    say: Callable[[str], None],
    watch: Callable[[str, float | None], bool],
) -> Engine:
    from engines.cuda.device import device_number, open_device
    from engines.tensorrt.options import PlanOptions
    from engines.tensorrt.plans import Order, load_file, load_kept

    if precision == "int8" or model.card.is_int8:
        raise EngineUnavailableError(
            "INT8 is for openvino and onnxruntime so far; with TensorRT take fp16, and the network "
            "in FP32 to make it from"
        )

    gpu = open_device(device_number(device))
    if model.file.suffix == PLAN_SUFFIX:
        return load_file(model.file, gpu, why, refine)
    options = PlanOptions.model_validate(
        {
            "precision": "fp16" if precision == "auto" else precision,
            "batch": batch,
            "batch_max": batch,
            "refine": describe(refine),
        }
    )
    return load_kept(Order(model, options, gpu, say, watch, why=why))
