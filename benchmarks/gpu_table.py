"""What benchmarks/gpu.py found, as a table and as a chart."""

from __future__ import annotations

from typing import Any


def table(result: dict[str, Any]) -> list[str]:
    """Markdown, a line a model and batch."""
    lines = [
        f"{result['card']}, {result['engine']}, {result['picture'][1]}x{result['picture'][0]}",
        "",
        "| model, batch | engine | of the roofline | lane, synthetic | lane, file | PyTorch loop |"
        " p99 at 30 fps, ms |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in result["models"].items():
        loop = row.get("torch", {}).get("eager", {}).get("loop", {}).get("synthetic", "")
        late = row.get("live", {}).get("30", {}).get("p99", "")
        roof = row.get("engine", {}).get("of_roofline", "")
        for batch, own in row.get("engine", {}).get("batches", {}).items():
            lane = row.get("lane", {}).get(batch, {})
            of = lane.get("of_engine", {})
            cells = [
                f"{lane.get(kind, '')} ({of[kind]})" if kind in of else str(lane.get(kind, ""))
                for kind in ("synthetic", "file")
            ]
            cells = [f"{name}, {batch}", str(own["fps"]), str(roof), *cells, str(loop), str(late)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def chart(result: dict[str, Any]) -> str:
    """Bars: engine alone, lane from the synthetic source, PyTorch's loop; frames a second, SVG."""
    bars: list[tuple[str, str, float]] = []
    for name, row in result["models"].items():
        for batch, own in row.get("engine", {}).get("batches", {}).items():
            bars.append((f"{name}, batch {batch}", "engine", own["fps"]))
            if fps := row.get("lane", {}).get(batch, {}).get("synthetic"):
                bars.append(("", "lane", fps))
        if fps := row.get("torch", {}).get("eager", {}).get("loop", {}).get("synthetic"):
            bars.append(("", "PyTorch loop", fps))
    most = max((fps for *_, fps in bars), default=1.0)
    colors = {"engine": "#9aa5b1", "lane": "#2f855a", "PyTorch loop": "#b7791f"}
    high = 22 * len(bars) + 20
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="860" height="{high}"']
    out.append(' font-family="sans-serif" font-size="12">')
    for i, (name, kind, fps) in enumerate(bars):
        y, wide = 10 + 22 * i, 380 * fps / most
        out.append(f'<text x="290" y="{y + 13}" text-anchor="end">{name}</text>')
        out.append(f'<rect x="300" y="{y}" width="{wide:.1f}" height="16" fill="{colors[kind]}"/>')
        out.append(f'<text x="{306 + wide:.1f}" y="{y + 13}">{kind} {fps:g}</text>')
    return "".join(out) + "</svg>\n"
