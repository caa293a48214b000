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
    """Markdown of every clip's figures, the clips' side by side in each cell."""
    clips = list(result["clips"].values())
    names = " and ".join(f"`{name}`" for name in result["clips"])
    rounds = len(next(iter(clips[0]["rounds"].values())))
    lines = [
        f"{names} to an overlay in a file",
        f"on {result['machine']}: medians of {rounds} rounds",
        f"taken in turns on {result['date']} at a load average of "
        f"{result['load_average_before'][0]:g}. Each cell has a figure for each",
        "clip, in this order.",
        "",
        "| | frames/s | CPU ms a frame | frames/s over the best peer's | its CPU over ours |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind in clips[0]["medians"]:
        values = [clip["medians"][kind] for clip in clips]
        ratios = [clip["beside_the_best_peer"].get(kind) for clip in clips]
        cells = [
            NAMES.get(kind, kind),
            " / ".join(f"{v['fps']:.1f}" for v in values),
            " / ".join(f"{v['cpu_ms']:.1f}" for v in values),
            " / ".join(f"{r['fps_ratio']:.2f}" for r in ratios if r),
            " / ".join(f"{r['cpu_ratio']:.2f}" for r in ratios if r),
        ]
        lines.append(f"| {' | '.join(cells)} |")
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
