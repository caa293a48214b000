"""`streamseg build`: a network made ready for an engine, proven, in a file or in the cache."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLES = """Examples:

streamseg build voc

streamseg build fcn_resnet50 --size 512x1024 --max-batch 8 -o fcn.plan --json fcn-report.json

streamseg build lraspp_mobilenet_v3_large --weights mine.pth --engine openvino -o lraspp.onnx

streamseg build voc --precision int8 --calibrate street.mp4 -o voc-int8.onnx

streamseg build unet/resnet34 --weights mine.pth --card mine.yaml --engine openvino -o unet.onnx
"""

Opt = typer.Option


def build(
    model: Annotated[
        str, typer.Argument(help="A name from `streamseg models`, or an .onnx file with a card.")
    ],
    output: Annotated[
        Path | None,
        Opt(
            "--output",
            "-o",
            help="A .plan for TensorRT, an .onnx for the other engines. "
            "Default: a plan goes to your cache, where `run` finds it.",
        ),
    ] = None,
    engine: Annotated[str, Opt(help="auto, tensorrt, openvino or onnxruntime.")] = "auto",
    precision: Annotated[
        str,
        Opt(help="auto (fp16 for TensorRT), fp16, bf16, fp32, or int8 (not TensorRT's yet)."),
    ] = "auto",
    calibrate: Annotated[
        list[str] | None,
        Opt(help="For int8: a video, a folder of pictures; may be repeated. Some dozens count."),
    ] = None,
    size: Annotated[str | None, Opt(help="Height x width of the input: 512x1024.")] = None,
    batch: Annotated[int, Opt(min=1, max=256, help="Pictures at a time, tuned for.")] = 1,
    min_batch: Annotated[int, Opt(min=1, help="The fewest pictures at a time.")] = 1,
    max_batch: Annotated[int | None, Opt(min=1, max=256, help="The most.")] = None,
    refine: Annotated[
        str | None,
        Opt(help="Refine scores in the plan: guided or crf, as in `streamseg run`. TensorRT only."),
    ] = None,
    weights: Annotated[
        str | None,
        Opt(
            help="For networks of torchvision and SMP: official (torchvision's, the default there),"
            " a state dict (.pth), or random (to measure speed)."
        ),
    ] = None,
    card: Annotated[
        Path | None, Opt(help="The .onnx file's card, if not beside it; or that of --weights.")
    ] = None,
    device: Annotated[str | None, Opt(help="The GPU's number. Default: 0.")] = None,
    workspace: Annotated[int, Opt(min=1, help="GPU memory for a kernel's own use, MiB.")] = 4096,
    optimization: Annotated[int, Opt(min=0, max=5, help="0 builds fastest, 5 tries most.")] = 3,
    timing_cache: Annotated[
        Path | None, Opt(help="Kernel timings to use and add to. Default: in your cache.")
    ] = None,
    hardware_compatible: Annotated[
        bool, Opt("--hardware-compatible", help="For every GPU from Ampere on; slower.")
    ] = False,
    version_compatible: Annotated[
        bool, Opt("--version-compatible", help="For later TensorRT versions too.")
    ] = False,
    frames: Annotated[
        Path | None, Opt(help="A folder of your own pictures to compare masks with FP32 on.")
    ] = None,
    allow_drift: Annotated[
        bool, Opt("--allow-drift", help="Keep a plan whose masks differ from FP32's.")
    ] = False,
    report: Annotated[Path | None, Opt("--json", help="Write what was built as JSON.")] = None,
    force: Annotated[bool, Opt("--force", help="Overwrite outputs that exist.")] = False,
    quiet: Annotated[bool, Opt("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Opt("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Make a network ready for an engine, and prove that its masks are right."""
    from engines.choose import choose_engine
    from engines.refine import NONE, parse_refine
    from tools.config import size_option
    from tools.progress import Printer

    choice = choose_engine(engine)
    if choice.engine == "torch":
        raise typer.BadParameter(
            "torch runs a library's module as it is; there is nothing to build"
        )
    say = Printer(quiet)
    say.note(f"engine  {choice.engine} ({choice.why})")
    pixels = size_option(size)
    if (precision == "int8") != bool(calibrate):
        raise typer.BadParameter(
            "--precision int8 and --calibrate VIDEO|FOLDER go together: ranges come from pictures"
        )
    if precision == "int8" and choice.engine == "tensorrt":
        raise typer.BadParameter(
            "--precision int8 is for openvino and onnxruntime so far; TensorRT's is fp16"
        )
    _check_outputs(output, ".plan" if choice.engine == "tensorrt" else ".onnx", report, force)
    found = _model(model, card, weights, pixels, say)
    if choice.engine == "tensorrt":
        options = {
            "precision": "fp16" if precision == "auto" else precision,
            "batch_min": min_batch,
            "batch": batch,
            "batch_max": max(batch, max_batch or batch),
            "workspace_mib": workspace,
            "optimization": optimization,
            "hardware_compatible": hardware_compatible,
            "version_compatible": version_compatible,
            "refine": refine or NONE,
        }
        made = _build_plan(
            found, options, device, output, say, choice.why, timing_cache, frames, allow_drift
        )
    else:
        _refuse_plan_options(
            device=device,
            timing_cache=timing_cache,
            frames=frames,
            max_batch=max_batch,
            refine=refine if parse_refine(refine or NONE) else None,
        )
        if output is None:
            raise typer.BadParameter(
                f"{choice.engine} needs no build in the cache; -o NAME.onnx writes a network to "
                "take along"
            )
        if precision == "int8":
            made = _write_int8(found, calibrate or [], output, choice.engine, allow_drift, say)
        else:
            made = _write_onnx(found, precision, output, choice.engine, say)
    if report is not None:
        report.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def _check_outputs(output: Path | None, suffix: str, report: Path | None, force: bool) -> None:
    """Before minutes of work: outputs are of the right kind, and would overwrite nothing."""
    from pipeline.sinks.destination import check_file

    if output is not None:
        if output.suffix != suffix:
            raise typer.BadParameter(f"-o {output}: this engine's file ends in {suffix}")
        check_file(output, force)
        check_file(output.with_suffix(".json" if suffix == ".plan" else ".yaml"), force)
    if report is not None:
        if (
            suffix == ".plan"
            and output is not None
            and report.resolve() == output.with_suffix(".json").resolve()
        ):
            raise typer.BadParameter(f"--json {report} is the plan's passport; name another file")
        check_file(report, force)


def _model(
    name: str, card: Path | None, weights: str | None, size: tuple[int, int] | None, say: Any
) -> Any:
    from engines.model import PLAN_SUFFIX, find_model

    if name.endswith(PLAN_SUFFIX):
        raise typer.BadParameter(f"{name} is built already; name the network it was built from")
    return find_model(name, card, say.note, weights=weights, size=size)


def _build_plan(
    model: Any,
    options: dict[str, Any],
    device: str | None,
    output: Path | None,
    say: Any,
    why: str,
    timing_cache: Path | None,
    frames: Path | None,
    allow_drift: bool,
) -> dict[str, Any]:
    from pydantic import ValidationError

    from engines.cuda.device import device_number, open_device
    from engines.tensorrt import plans
    from engines.tensorrt.options import PlanOptions

    try:
        wanted = PlanOptions.model_validate(options)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"])) or "batch"
        message = fault["msg"].removeprefix("Value error, ")
        raise typer.BadParameter(f"--{key.replace('_', '-')}: {message}") from None
    gpu = open_device(device_number(device))
    with say.building() as watch:
        order = plans.Order(
            model,
            wanted,
            gpu,
            say.note,
            watch,
            timing_cache=timing_cache,
            frames=frames,
            allow_drift=allow_drift,
            why=why,
        )
        if output is None:
            path, passport = plans.keep(order)
        else:
            path = output
            plan, passport = plans.make(order)
            plans.save(path, plan, passport)
    say.note(f"plan    {path}")
    size_mb = round(path.stat().st_size / 1e6, 3)
    return {
        "path": str(path),
        "size_mb": size_mb,
        **passport.model_dump(mode="json", by_alias=True),
    }


def _refuse_plan_options(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter(f"--{name.replace('_', '-')} goes with --engine tensorrt")


def _write_onnx(model: Any, precision: str, output: Path, engine: str, say: Any) -> dict[str, Any]:
    """The network and its card as files that `run --model` takes, on a machine without torch."""
    import hashlib

    from engines import guard
    from engines.choose import load_engine
    from engines.graph import read_onnx
    from engines.model import Model
    from engines.precision import to_precision

    wanted = "fp32" if precision == "auto" else precision
    begun = time.perf_counter()
    data = to_precision(read_onnx(model.file), wanted).SerializeToString()
    digest = hashlib.sha256(data).hexdigest()
    # The INT8 form lies beside the original, not beside what is taken along.
    card = model.card.model_copy(update={"sha256": digest, "int8": None})
    _save(output, data, card)
    agreement = None
    if wanted != "fp32" and card.metrics.get("weights") != "random":
        with (
            load_engine(Model(card, output), engine=engine) as mine,
            load_engine(model, engine=engine, precision="fp32") as right,
        ):
            agreement = guard.compare(mine, right, guard.guard_pictures(card))
        say.note(f"guard: {agreement}")
    say.note(f"network {output}, card {output.with_suffix('.yaml')}")
    return _made(output, wanted, engine, begun, card, agreement)


def _write_int8(
    model: Any, sources: list[str], output: Path, engine: str, allow_drift: bool, say: Any
) -> dict[str, Any]:
    """The same in INT8, its ranges from pictures of these sources."""
    from engines.quantize import quantize
    from tools.calibrate import calibration_pictures

    begun = time.perf_counter()
    pictures, held_out = calibration_pictures(sources, model.card)
    say.note(f"ranges from {len(pictures)} pictures, checked on {len(held_out)} others")
    made = quantize(model, pictures, held_out, allow_drift=allow_drift, say=say.note)
    _save(output, made.data, made.card)
    say.note(f"network {output}, card {output.with_suffix('.yaml')}")
    report = _made(output, "int8", engine, begun, made.card, made.agreement)
    return {**report, "kept_in_fp32": list(made.kept)}


def _save(output: Path, data: bytes, card: Any) -> None:
    import yaml

    from pipeline.sinks.destination import disk_errors
    from pipeline.sinks.images import write_whole

    text = yaml.safe_dump(card.model_dump(mode="json", exclude_none=True), sort_keys=False)
    with disk_errors(output):
        write_whole(output, data)
        write_whole(output.with_suffix(".yaml"), text.encode())


def _made(
    output: Path, precision: str, engine: str, begun: float, card: Any, agreement: Any
) -> dict[str, Any]:
    return {
        "path": str(output),
        "size_mb": round(output.stat().st_size / 1e6, 3),
        "precision": precision,
        "engine": engine,
        "build_s": round(time.perf_counter() - begun, 3),
        "card": card.model_dump(mode="json"),
        "guard": None if agreement is None else agreement.model_dump(),
    }
