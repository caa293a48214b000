"""Which input size suits the model `voc` for 16:9 video: speed, work and agreement, size by size.

    python -m benchmarks.voc_input_size CLIPS_FOLDER --out benchmarks/results

There is no ground truth for a user's clips, so the labels of every size are compared with a strong
reference made by the same network: class probabilities averaged over several larger and smaller
pictures with their true aspect, each also mirrored. None of the reference's sizes is a candidate.
This measures how far a size is from the best that these weights can do, not how often they are
right. With --package the reference runs at output stride 8, as the weights were published.

Speed is OpenVINO's throughput of the graph that the engine runs (8-bit picture to class ids),
measured in turns, so that a slow moment of the machine meets every size alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnx
import openvino
from numpy.typing import NDArray

from engines.card import Card, read_card
from engines.cores import available_cores
from engines.graph import read_onnx, wrap

MODELS = Path(__file__).resolve().parent.parent / "engines" / "models"
# (height, width), 16 k + 1 each: close to 16:9, and the squares that the weights are known at.
SIZES = (
    (225, 401),
    (257, 449),
    (289, 513),
    (321, 577),
    (353, 625),
    (385, 689),
    (385, 385),
    (513, 513),
)
BASE = (385, 385)
# Heights of the reference's pictures: around those of VOC's own, mostly 333 to 500 pixels high,
# which the weights were trained with.
REFERENCE_HEIGHTS = (273, 337, 401, 465, 529)
BACKGROUND = 0

Picture = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Scores = NDArray[np.float32]


def at_size(card: Card, size: tuple[int, int]) -> Card:
    """The card for another (height, width)."""
    height, width = size
    return card.model_copy(
        update={"input": card.input.model_copy(update={"height": height, "width": width})}
    )


def compile_model(model: onnx.ModelProto, **options: str) -> openvino.CompiledModel:
    """The graph on OpenVINO's CPU device, batch 1, in float32."""
    core = openvino.Core()
    graph = core.read_model(model.SerializeToString())
    graph.reshape({0: openvino.PartialShape([1, *list(graph.input(0).partial_shape)[1:]])})
    return core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **options})


def giga_macs(model: onnx.ModelProto, size: tuple[int, int]) -> float:
    """Multiply-accumulates of the convolutions for one (height, width) picture, in 1e9."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for dim, value in zip(
        fixed.graph.input[0].type.tensor_type.shape.dim, (1, 3, *size), strict=True
    ):
        dim.dim_value = value
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    shapes = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in inferred.graph.value_info
    }
    kernels = {tensor.name: tensor.dims for tensor in fixed.graph.initializer}
    total = 0
    for node in fixed.graph.node:
        if node.op_type == "Conv":
            _, inputs, height, width = kernels[node.input[1]]
            total += int(np.prod(shapes[node.output[0]])) * inputs * height * width
    return total / 1e9


def clip_frames(path: Path, count: int) -> list[Picture]:
    """`count` frames spread over the clip, uint8 (H, W, 3) RGB."""
    with av.open(str(path)) as container:
        total = sum(1 for _ in container.decode(video=0))
    wanted = set(np.linspace(0, total - 1, count + 2).astype(int)[1:-1].tolist())
    with av.open(str(path)) as container:
        return [
            frame.to_ndarray(format="rgb24")
            for index, frame in enumerate(container.decode(video=0))
            if index in wanted
        ]


def normalised(picture: Picture, card: Card, size: tuple[int, int]) -> Scores:
    """uint8 (H, W, 3) RGB -> float32 (1, 3, height, width) as the card says."""
    resized = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
    mean, std = (np.array(v, np.float32) for v in (card.input.mean, card.input.std))
    values = (resized.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


class Reference:
    """Labels by multi-scale and mirrored averaging of class probabilities."""

    def __init__(self, model: onnx.ModelProto, card: Card, heights: tuple[int, ...]):
        self.model, self.card, self.heights = model, card, heights
        self.networks: dict[tuple[int, int], openvino.CompiledModel] = {}

    def scores(self, picture: Picture, size: tuple[int, int]) -> Scores:
        """float32 (H, W, 21): class probabilities at the picture's own size."""
        if size not in self.networks:
            fixed = onnx.ModelProto()
            fixed.CopyFrom(self.model)
            dims = fixed.graph.input[0].type.tensor_type.shape.dim
            dims[2].dim_value, dims[3].dim_value = size
            self.networks[size] = compile_model(fixed)
        logits = self.networks[size](normalised(picture, self.card, size))[0][0]
        odds = np.exp(logits - logits.max(0))
        shares = np.ascontiguousarray((odds / odds.sum(0)).transpose(1, 2, 0))
        height, width = picture.shape[:2]
        # By planes, because OpenCV's resize takes four channels at most in some builds.
        planes = [
            cv2.resize(shares[..., c], (width, height), interpolation=cv2.INTER_LINEAR)
            for c in range(shares.shape[2])
        ]
        return np.stack(planes, axis=2)

    def labels(self, picture: Picture) -> Labels:
        """uint8 (H, W) class ids at the picture's size."""
        height, width = picture.shape[:2]
        total: Scores | None = None
        for scaled in self.heights:
            size = (scaled, round(scaled * width / height / 16) * 16 + 1)
            for mirrored in (False, True):
                seen = np.ascontiguousarray(picture[:, ::-1]) if mirrored else picture
                scores = self.scores(seen, size)
                scores = scores[:, ::-1] if mirrored else scores
                total = scores.copy() if total is None else total + scores
        assert total is not None
        labels: Labels = total.argmax(2).astype(np.uint8)
        return labels


class Agreement:
    """Counts over one clip: pixels that agree, and the foreground's intersection and union."""

    def __init__(self) -> None:
        self.same = self.pixels = self.common = self.either = 0

    def add(self, labels: Labels, truth: Labels) -> None:
        """Both uint8 (H, W) class ids at the same size."""
        same = labels == truth
        self.same += int(same.sum())
        self.pixels += labels.size
        self.common += int((same & (truth != BACKGROUND)).sum())
        self.either += int(((labels != BACKGROUND) | (truth != BACKGROUND)).sum())

    def shares(self) -> dict[str, float | None]:
        """Pixel agreement, and pixels of the right foreground class over all that either calls so.

        A clip without any foreground has no such IoU.
        """
        return {
            "agreement": round(self.same / self.pixels, 4),
            "foreground_iou": round(self.common / self.either, 4) if self.either else None,
        }


def agreements(
    clips: dict[str, list[Picture]],
    reference: Reference,
    engines: dict[tuple[int, int], openvino.CompiledModel],
) -> dict[tuple[int, int], dict[str, dict[str, float | None]]]:
    """For every size and clip, how far its labels agree with the reference's, at frame size."""
    result: dict[tuple[int, int], dict[str, dict[str, float | None]]] = {
        size: {} for size in engines
    }
    for name, frames in clips.items():
        counts = {size: Agreement() for size in engines}
        for frame in frames:
            truth = reference.labels(frame)
            for size, engine in engines.items():
                picture = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR)
                labels = engine(picture[None])[0][0]
                back = cv2.resize(
                    labels, truth.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT
                ).astype(np.uint8)
                counts[size].add(back, truth)
        for size, count in counts.items():
            result[size][name] = count.shares()
        print(f"compared {len(frames)} frames of {name}", flush=True)
    return result


def frames_per_second(queue: openvino.AsyncInferQueue, picture: Picture, seconds: float) -> float:
    """Throughput of full queues over about `seconds`, one (1, H, W, 3) picture a request."""
    for _ in range(2 * len(queue)):
        queue.start_async({0: picture}, share_inputs=True)
    queue.wait_all()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(4):
            queue.start_async({0: picture}, share_inputs=True)
        done += 4
    queue.wait_all()
    return done / (time.perf_counter() - started)


def speeds(
    engines: dict[tuple[int, int], openvino.CompiledModel], frame: Picture, rounds: int
) -> dict[tuple[int, int], dict[str, float]]:
    """Median FPS of every size, and the median over rounds of its ratio to BASE."""
    queues = {size: openvino.AsyncInferQueue(engine) for size, engine in engines.items()}
    measured: dict[tuple[int, int], list[float]] = {size: [] for size in engines}
    for _ in range(rounds):
        for size, queue in queues.items():
            picture = cv2.resize(frame, size[::-1])[None].astype(np.uint8)
            measured[size].append(frames_per_second(queue, picture, seconds=1.0))
    return {
        size: {
            "fps": statistics.median(values),
            "ratio_to_base": statistics.median(
                value / base for value, base in zip(values, measured[BASE], strict=True)
            ),
        }
        for size, values in measured.items()
    }


def reference_model(package: Path | None) -> onnx.ModelProto:
    """The shipped network, or the package's at output stride 8, which needs torch."""
    if package is None:
        return read_onnx(MODELS / "voc.onnx")
    from engines.zoo.voc import export_voc

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "voc_stride8.onnx"
        export_voc(package, path, output_stride=8)
        return read_onnx(path)


def rows(report: dict[str, Any]) -> Iterator[str]:
    """The report as Markdown, line by line."""
    machine, reference = report["machine"], report["reference"]
    yield "# Input sizes of `voc`"
    yield ""
    yield (
        f"{len(report['clips'])} clips, {report['frames_per_clip']} frames each. "
        f"OpenVINO {machine['openvino']}, {machine['cores']} cores, {machine['cpu']}, float32, "
        "throughput hint, 8-bit picture to class ids."
    )
    yield ""
    yield (
        f"The reference is no ground truth: it is {reference['network']}, with the probabilities "
        f"of {2 * len(reference['heights'])} passes averaged, at heights "
        f"{', '.join(map(str, reference['heights']))} with the clip's aspect, each also mirrored. "
        "Agreement and IoU are means over the clips, at frame size."
    )
    yield ""
    yield "| input (HxW) | GMACs | FPS | FPS / FPS at 385x385 | agreement | foreground IoU |"
    yield "|---|---:|---:|---:|---:|---:|"
    for row in report["sizes"]:
        yield (
            f"| {row['height']}x{row['width']} | {row['gmacs']:.2f} | {row['fps']:.1f} "
            f"| {row['ratio_to_base']:.2f} | {row['agreement']:.2%} "
            f"| {written(row['foreground_iou'])} |"
        )
    yield ""
    yield "Foreground IoU clip by clip:"
    yield ""
    yield "| input (HxW) | " + " | ".join(report["clips"]) + " |"
    yield "|---|" + "---:|" * len(report["clips"])
    for row in report["sizes"]:
        values = (written(row["clips"][name]["foreground_iou"]) for name in report["clips"])
        yield f"| {row['height']}x{row['width']} | " + " | ".join(values) + " |"


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is known, to four digits."""
    known = [value for value in values if value is not None]
    return round(statistics.mean(known), 4) if known else None


def written(value: float | None) -> str:
    """For a table's cell."""
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, help="a folder of video files")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of clips to take")
    parser.add_argument("--frames", type=int, default=12, help="frames a clip (default: 12)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of speed (default: 9)")
    parser.add_argument("--package", type=Path, help="the weights' .tgz, for a stride 8 reference")
    parser.add_argument("--out", type=Path, help="folder for the table (.md and .json)")
    parser.add_argument("--name", default="voc_input_size", help="the table's file name")
    options = parser.parse_args()

    card = read_card(MODELS / "voc.yaml")
    model = read_onnx(MODELS / "voc.onnx")
    paths = [
        path
        for path in sorted(options.clips.iterdir())
        if path.suffix.lower() in {".mp4", ".mkv", ".webm", ".avi", ".mov"}
        and (not options.only or any(part in path.name for part in options.only))
    ]
    if not paths:
        parser.error(f"no video file in {options.clips}")
    clips = {path.stem: clip_frames(path, options.frames) for path in paths}
    engines = {
        size: compile_model(wrap(model, at_size(card, size)), PERFORMANCE_HINT="THROUGHPUT")
        for size in SIZES
    }
    fps = speeds(engines, next(iter(clips.values()))[0], options.rounds)
    print("measured speed", flush=True)
    reference = Reference(reference_model(options.package), card, REFERENCE_HEIGHTS)
    compared = agreements(clips, reference, engines)
    report = {
        "schema": 1,
        "model_sha256": card.sha256,
        "machine": {
            "cpu": str(openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")),
            "cores": available_cores(),
            "openvino": openvino.__version__.split("-")[0],
        },
        "reference": {
            "network": "the network at output stride 8, as its weights were published"
            if options.package
            else "the same network",
            "heights": REFERENCE_HEIGHTS,
            "mirrored": True,
        },
        "frames_per_clip": options.frames,
        "clips": list(clips),
        "sizes": [
            {
                "height": size[0],
                "width": size[1],
                "gmacs": round(giga_macs(model, size), 3),
                **{key: round(value, 3) for key, value in fps[size].items()},
                **{
                    key: mean(clip[key] for clip in compared[size].values())
                    for key in ("agreement", "foreground_iou")
                },
                "clips": compared[size],
            }
            for size in SIZES
        ],
    }
    text = "\n".join(rows(report)) + "\n"
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{options.name}.md").write_text(text, encoding="utf-8")
        (options.out / f"{options.name}.json").write_text(
            json.dumps(report, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
