"""A real nvcc: the machine's if it knows every architecture, else from NVIDIA's wheels."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from engines.cuda.kernels import find_nvcc

ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 120)
# The compiler, what it calls, and the headers that it always reads.
VERSION = "13.5.37"
WHEELS = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime")


def real_nvcc(folder: Path) -> str:
    """The program; raises OSError or SubprocessError where it cannot be fetched."""
    found = find_nvcc()
    if found is not None:
        known = subprocess.run([found, "--list-gpu-arch"], capture_output=True, text=True)
        if {f"compute_{a}" for a in ARCHITECTURES} <= set(known.stdout.split()):
            return found
    return fetch_nvcc(folder)


def fetch_nvcc(folder: Path) -> str:
    call = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    call += ["--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    call += [f"{name}=={VERSION}" for name in WHEELS]
    subprocess.run(call, check=True, timeout=240)
    for path in folder.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(folder)
        path.unlink()
    toolkit = folder / "nvidia" / "cu13"
    for program in (*(toolkit / "bin").iterdir(), toolkit / "nvvm" / "bin" / "cicc"):
        program.chmod(0o755)
    return shutil.which("nvcc", path=str(toolkit / "bin")) or ""
