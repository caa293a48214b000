"""PyTorch on the card, as benchmarks/gpu.py measures it beside streamseg."""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2

from benchmarks.gpu_work import PICTURE, PlanesSource, rate, size_of
from engines.model import find_model
from engines.zoo.torchvision import NETWORKS, make_torchvision
from pipeline.frame import Frame
from pipeline.sources import open_source


def measure_torch(name: str, clip: Path, ask: Any, result: dict[str, Any]) -> dict[str, Any]:
    """PyTorch as the articles do it, and its network alone, in FP16 and channels last."""
    import torch

    if name not in NETWORKS:
        return {"problem": "torchvision has no such network"}
    height, width = size_of(ask)
    torch.backends.cudnn.benchmark = True
    cv2.setNumThreads(-1)
    network = make_torchvision(name, weights=ask.weights).half().cuda()
    network = network.to(memory_format=torch.channels_last)
    mean = torch.tensor([0.485, 0.456, 0.406], device="cuda").view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device="cuda").view(1, 3, 1, 1)
    colors = find_model("voc").card.colors
    kinds: dict[str, Any] = {
        "eager": network,
        "compile": torch.compile(network, dynamic=False),
        "compile, graphs": torch.compile(network, dynamic=False, mode="reduce-overhead"),
    }

    def loop(frames: Iterator[Frame], lasts_s: float, run: Any) -> float:
        """Frames a second, after the first few."""
        times = []
        for frame in frames:
            image = frame.image
            small = torch.from_numpy(cv2.resize(image, (width, height))).cuda()
            tensor = (small.permute(2, 0, 1)[None].float() / 255 - mean) / std
            tensor = tensor.half().contiguous(memory_format=torch.channels_last)
            mask = run(tensor).argmax(1)[0].to(torch.uint8).cpu().numpy()
            painted = cv2.resize(colors[mask], image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            cv2.addWeighted(image, 0.5, painted, 0.5, 0)
            times.append(time.perf_counter())
            if times[-1] - times[0] > lasts_s:
                break
        return (len(times) - 6) / (times[-1] - times[5])

    out: dict[str, Any] = {"version": torch.__version__}
    try:
        for kind, run in kinds.items():
            row: dict[str, Any] = {"network": {}, "loop": {}}
            with torch.inference_mode():
                for batch in sorted({1, ask.batch}):
                    pictures = torch.rand(batch, 3, height, width).half().cuda()
                    pictures = pictures.to(memory_format=torch.channels_last)

                    def work(times: int, run: Any = run, pictures: Any = pictures) -> None:
                        for _ in range(times):
                            run(pictures).argmax(1).to(torch.uint8)
                        torch.cuda.synchronize()

                    row["network"][str(batch)] = rate(work, batch, ask)
                sources: dict[str, Callable[[], Iterator[Frame]]] = {
                    "synthetic": PlanesSource(*PICTURE, 1 << 30).frames,
                    "file": lambda: open_source(clip).frames(),
                }
                for source, frames in sources.items():
                    rates = [loop(frames(), ask.seconds, run) for _ in range(ask.rounds + 1)]
                    row["loop"][source] = round(statistics.median(rates[1:]), 1)
            out[kind] = row
    finally:
        cv2.setNumThreads(1)
    return out
