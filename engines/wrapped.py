"""Wrapped graphs in the user's cache, so that a warm start does without onnx."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engines.cache import cache_dir, write_atomically
from engines.model import Model
from engines.refine import Refine, describe

# What graph.py builds; part of the cache key. Raise it when a change there changes a graph.
# It stands here because importing graph.py imports onnx, which a warm start does without.
GRAPH_REVISION = 4

# What precision.py makes of a network, likewise.
PRECISION_REVISION = 1

# What refine_graph.py adds, likewise.
REFINE_REVISION = 1

# A cached graph begins with the sha256 of the rest.
_DIGEST = hashlib.sha256().digest_size


def wrapped_graph(
    model: Model,
    precision: str = "fp32",
    say: Callable[[str], None] = lambda line: None,
    refine: Refine | None = None,
) -> bytes:
    """The model's graph with pictures in and class ids out, from the cache when it was made before.

    `precision`: fp32 takes the network as its file has it, fp16 and bf16 rewrite its types.
    """
    folder = cache_dir("graphs")
    kept = folder / f"{graph_key(model, precision, refine)}.graph" if folder else None
    if kept is not None and (known := _read_kept(kept)) is not None:
        return known
    say(f"preparing {model.card.name} (once)")
    from engines.graph import read_onnx, wrap

    inner = read_onnx(model.file)
    if precision != "fp32":
        from engines.precision import to_precision

        inner = to_precision(inner, precision)
    data: bytes = wrap(inner, model.card, refine).SerializeToString()
    if kept is not None:
        with suppress(OSError):  # a full disk costs the next start some time, not this one
            write_atomically(kept, hashlib.sha256(data).digest() + data)
    return data


def graph_key(model: Model, precision: str = "fp32", refine: Refine | None = None) -> str:
    """A sha256 of all that `wrapped_graph` depends on: the network's bytes, those of its weights
    in files beside it, the whole card, the precision, the refinement, and our own revisions. A
    changed card or retrained weights never meet an old graph or plan.
    """
    network = model.file.read_bytes()
    key = hashlib.sha256(network)
    for path in _external_files(model.file, network):
        key.update(path.read_bytes())
    key.update(model.card.model_dump_json().encode())
    key.update(str(GRAPH_REVISION).encode())
    if precision != "fp32":
        key.update(f"{precision} {PRECISION_REVISION}".encode())
    if refine is not None:
        key.update(f"{describe(refine)} {REFINE_REVISION}".encode())
    return key.hexdigest()


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
