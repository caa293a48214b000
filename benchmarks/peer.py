"""One peer's own pipeline, clip in, overlay out; run by benchmarks/peers.py.

It imports nothing of streamseg. What is common to all peers is written as their examples and the
articles about them write it: OpenCV decodes and blends, NumPy does what is left. All but
supervision, which has no choice, write H.264 with streamseg's own settings of x264.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np


class Writer:
    """x264 as streamseg asks for it, but with the threads that it takes by itself."""

    def __init__(self, path: Path, width: int, height: int, rate: float) -> None:
        import av

        self._av = av
        self._container = av.open(str(path), "w")
        fraction = Fraction(rate).limit_denominator(1001)
        options = {"preset": "superfast", "crf": "23"}
        self._stream: Any = self._container.add_stream("libx264", rate=fraction, options=options)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.max_b_frames = 0

    def write(self, bgr: Any) -> None:
        frame = self._av.VideoFrame.from_ndarray(bgr, format="bgr24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def read(clip: str, frames: int) -> Iterator[Any]:
    """BGR pictures."""
    capture = cv2.VideoCapture(clip)
    for _ in range(frames):
        more, frame = capture.read()
        if not more:
            break
        yield frame
    capture.release()


def blend(frame: Any, small: Any, palette: Any) -> Any:
    """Labels to the frame's size, colours, and both mixed where there is a class."""
    size = (frame.shape[1], frame.shape[0])
    labels = cv2.resize(small.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    mixed = cv2.addWeighted(frame, 0.5, palette[labels], 0.5, 0)
    return np.where((labels > 0)[..., None], mixed, frame)


class Network:
    """The ONNX on OpenVINO, one picture at a time."""

    def __init__(self, ask: dict[str, Any], latency: bool = True) -> None:
        import openvino as ov
        import openvino.properties.hint as hints

        self.size = (ask["width"], ask["height"])
        self._mean = np.array(ask["mean"], np.float32) * 255
        self._scale = 1 / (np.array(ask["std"], np.float32) * 255)
        core = ov.Core()
        network = core.read_model(ask["onnx"])
        network.reshape([1, 3, ask["height"], ask["width"]])
        mode = hints.PerformanceMode.LATENCY if latency else hints.PerformanceMode.THROUGHPUT
        settings = {hints.performance_mode(): mode, hints.inference_precision(): ov.Type.f32}
        self._compiled = core.compile_model(network, "CPU", settings)

    def __call__(self, frame: Any) -> Any:
        rgb = cv2.cvtColor(cv2.resize(frame, self.size), cv2.COLOR_BGR2RGB)
        tensor = ((rgb.astype(np.float32) - self._mean) * self._scale).transpose(2, 0, 1)[None]
        scores = self._compiled([np.ascontiguousarray(tensor)])[0]
        return scores[0].argmax(axis=0)


def serial_openvino(ask: dict[str, Any], target: Path) -> int:
    """Read, infer, blend, write, one after the other."""
    network, palette = Network(ask), palette_of(ask)
    return loop(ask, target, lambda frame: blend(frame, network(frame), palette))


def serial_pytorch(ask: dict[str, Any], target: Path) -> int:
    """The same with torchvision's model in PyTorch, as its tutorials do it."""
    import torch
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large
    from torchvision.transforms.functional import normalize, to_tensor

    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21).eval()
    palette, size = palette_of(ask), (ask["width"], ask["height"])

    def work(frame: Any) -> Any:
        rgb = cv2.cvtColor(cv2.resize(frame, size), cv2.COLOR_BGR2RGB)
        with torch.no_grad():
            tensor = normalize(to_tensor(rgb), ask["mean"], ask["std"])
            scores = model(tensor.unsqueeze(0))["out"][0]
        return blend(frame, scores.argmax(0).byte().numpy(), palette)

    return loop(ask, target, work)


def loop(ask: dict[str, Any], target: Path, work: Callable[[Any], Any]) -> int:
    first = next(read(ask["clip"], 1))
    work(first)
    height, width = first.shape[:2]
    start(ask)
    writer, count = Writer(target, width, height, ask["rate"]), 0
    for frame in read(ask["clip"], ask["frames"]):
        writer.write(work(frame))
        count += 1
    writer.close()
    return count


def supervision(ask: dict[str, Any], target: Path) -> int:
    """supervision.process_video, which reads and writes in threads of its own."""
    import supervision as sv

    network, palette = Network(ask), palette_of(ask)
    network(np.zeros((720, 1280, 3), np.uint8))
    start(ask)
    sv.process_video(
        ask["clip"],
        str(target),
        lambda frame, index: blend(frame, network(frame), palette),
        max_frames=ask["frames"],
        prefetch=8,
        writer_buffer=8,
    )
    return sum(1 for _ in read(str(target), ask["frames"]))


def model_api(ask: dict[str, Any], target: Path) -> int:
    """OpenVINO Model API: its asynchronous pipeline, its own resizing and normalising in the graph,
    one request a stream more than there are streams.
    """
    from model_api.adapters import OpenvinoAdapter, create_core
    from model_api.models import SegmentationModel
    from model_api.pipelines import AsyncPipeline

    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    adapter = OpenvinoAdapter(create_core(), ask["onnx"], device="CPU", plugin_config=settings)
    adapter.reshape_model({"input": [1, 3, ask["height"], ask["width"]]})
    model = SegmentationModel(
        adapter,
        configuration={
            "mean_values": [255 * v for v in ask["mean"]],
            "scale_values": [255 * v for v in ask["std"]],
            "reverse_input_channels": True,
            "soft_threshold": float("inf"),
            "return_soft_prediction": False,
        },
        preload=True,
    )
    palette, pipeline = palette_of(ask), AsyncPipeline(model)
    first = next(read(ask["clip"], 1))
    pipeline.submit_data(first, 0, {})
    pipeline.await_all()
    pipeline.get_result(0)
    height, width = first.shape[:2]
    start(ask)
    writer, waiting, done = Writer(target, width, height, ask["rate"]), {}, 0

    def finish() -> bool:
        nonlocal done
        result = pipeline.get_result(done)
        if result is None:
            return False
        writer.write(blend(waiting.pop(done), result[0], palette))
        done += 1
        return True

    for number, frame in enumerate(read(ask["clip"], ask["frames"])):
        while not pipeline.is_ready():
            pipeline.await_any()
            finish()
        waiting[number] = frame
        pipeline.submit_data(frame, number, {})
        while finish():
            pass
    pipeline.await_all()
    while waiting:
        finish()
    writer.close()
    return done


def inference_pipeline(ask: dict[str, Any], target: Path) -> int:
    """Roboflow's InferencePipeline around the same network: it reads ahead in a thread, infers in
    another, and hands results to a third.
    """
    from inference import InferencePipeline
    from inference.core.interfaces.camera.entities import VideoFrame

    network, palette = Network(ask), palette_of(ask)
    first = next(read(ask["clip"], 1))
    network(first)
    height, width = first.shape[:2]
    count = 0

    def infer(frames: list[VideoFrame]) -> list[Any]:
        return [network(frame.image) for frame in frames]

    def take(labels: Any, frame: VideoFrame) -> None:
        nonlocal count
        if count == ask["frames"]:  # it reads the clip to its end unless it is told to stop
            pipeline.terminate()
            return
        writer.write(blend(frame.image, labels, palette))
        count += 1

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=ask["clip"], on_video_frame=infer, on_prediction=take
    )
    start(ask)
    writer = Writer(target, width, height, ask["rate"])
    pipeline.start()
    pipeline.join()
    writer.close()
    return count


PEERS = {
    "serial_openvino": serial_openvino,
    "serial_pytorch": serial_pytorch,
    "supervision": supervision,
    "model_api": model_api,
    "inference_pipeline": inference_pipeline,
}


def palette_of(ask: dict[str, Any]) -> Any:
    """uint8 (256, 3) BGR."""
    return np.ascontiguousarray(np.array(ask["colors"], np.uint8)[:, ::-1])


def start(ask: dict[str, Any]) -> None:
    """Loading and the first picture are done: from here on it counts."""
    ask["begun"], ask["cpu"] = time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("ask", type=Path, help="JSON: clip, network, card and palette")
    args = parser.parse_args()
    ask = json.loads(args.ask.read_text())
    with tempfile.TemporaryDirectory() as folder:
        count = PEERS[args.peer](ask, Path(folder) / "out.mp4")
        wall, used = time.perf_counter() - ask["begun"], time.process_time() - ask["cpu"]
    print(json.dumps({"fps": count / wall, "cpu_ms": 1000 * used / count, "frames": count}))


if __name__ == "__main__":
    main()
