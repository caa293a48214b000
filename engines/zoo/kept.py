"""Networks of torch libraries as ONNX files in the user's cache: each is made once, and a second
start needs neither torch nor the library.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from engines.cache import cache_dir
from engines.errors import ModelError

# Raise it when what engines/export.py or a network of engines/zoo writes changes.
ZOO_REVISION = 2


def keep_onnx(
    stem: str,
    make: Callable[[], Any],
    *,
    size: tuple[int, int],
    dynamic: bool | Literal["batch"],
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """The network that `make` gives, a torch.nn.Module, as STEM.onnx in the cache, made if it is
    not there; size and dynamic are export_onnx's.

    stem: from `kept_stem`, which holds all that tells one network from another.
    Raises ModelError where no cache is to be had or the network cannot be written.
    """
    folder = cache_dir("zoo")
    if folder is None:
        raise ModelError("no cache folder is writable, where the network would be kept as ONNX")
    path = folder / f"{stem}.onnx"
    if not path.is_file():
        network = make()
        say("writing the network as ONNX (once)")
        from engines.export import export_onnx

        # Whole or not at all: a reader must not meet half a file.
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            export_onnx(network, Path(fresh) / path.name, size=size, dynamic=dynamic)
            (Path(fresh) / path.name).replace(path)
    return path


def kept_stem(name: str, digest: str, classes: int | str, size: tuple[int, int] | None) -> str:
    """The file's name in the cache: network, weights, classes and, where it is fixed, its size."""
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower())
    # Two names may have one slug.
    mark = hashlib.sha256(name.encode()).hexdigest()[:6]
    fixed = "" if size is None else f"-{size[0]}x{size[1]}"
    return f"{slug}-{mark}-{digest[:16]}-r{ZOO_REVISION}{fixed}-c{classes}"


def kept_classes(name: str, digest: str, size: tuple[int, int] | None) -> int | None:
    """The number of classes of a kept network, from its file's name; None where there is none."""
    folder = cache_dir("zoo")
    if folder is None:
        return None
    found = next(folder.glob(f"{kept_stem(name, digest, '*', size)}.onnx"), None)
    return None if found is None else int(found.stem.rpartition("-c")[2])


def weights_digest(name: str, weights: str) -> str:
    """What tells one network's weights from another's, without loading torch.

    weights: `official`, `random` or a file's path. Raises ModelError where there is no such file.
    """
    if weights in ("official", "random"):
        return weights
    path = Path(weights)
    if not path.is_file():
        raise ModelError(
            f"no weights file at {path} for {name}; --weights is official, random or a .pth file"
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()
