"""The README's speed table, made from benchmarks/results/peers.json.

`python -m benchmarks.table` writes it into README.md; with `--check` it says whether it is there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- made by python -m benchmarks.table -->", "<!-- end of the table -->"
NAMES = {
    "streamseg": "streamseg, `voc`, FP32",
    "streamseg, INT8": "streamseg, `voc`, INT8",
    "serial_openvino": "OpenVINO in a loop",
    "supervision": "supervision.process_video, OpenVINO in its callback",
    "model_api": "OpenVINO Model API, AsyncPipeline",
    "inference_pipeline": "Roboflow InferencePipeline, OpenVINO as its logic",
    "streamseg, LR-ASPP": "streamseg, LR-ASPP 288x512, FP32",
    "streamseg, LR-ASPP, INT8": "streamseg, LR-ASPP 288x512, INT8",
    "serial_pytorch, LR-ASPP": "PyTorch in a loop, LR-ASPP 288x512",
}


def table(result: dict[str, Any]) -> str:
    """Markdown of the first clip's figures."""
    clip, figures = next(iter(result["clips"].items()))
    rounds = len(next(iter(figures["rounds"].values())))
    lines = [
        f"`{clip}` to an overlay in a file on {result['machine']};",
        f"medians of {rounds} rounds taken in turns on {result['date']}, at a load average of",
        f"{result['load_average_before'][0]:g}:",
        "",
        "| | frames/s | ms of CPU a frame | beside the best peer: frames/s, CPU |",
        "|---|---:|---:|---:|",
    ]
    for kind, values in figures["medians"].items():
        beside = figures["beside_the_best_peer"].get(kind)
        ratio = f"{beside['fps_ratio']:.2f}, {beside['cpu_ratio']:.2f}" if beside else ""
        lines.append(
            f"| {NAMES.get(kind, kind)} | {values['fps']:.1f} | {values['cpu_ms']:.1f} | {ratio} |"
        )
    return "\n".join(lines)


def replaced(readme: str, new: str) -> str:
    """The README with this table between its marks."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n\n{new}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 if it differs")
    args = parser.parse_args()
    path = ROOT / "README.md"
    result = json.loads((ROOT / "benchmarks/results/peers.json").read_text())
    now = path.read_text()
    want = replaced(now, table(result))
    if args.check and now != want:
        raise SystemExit("README.md's table is not that of results/peers.json: run this module")
    path.write_text(want)


if __name__ == "__main__":
    main()
