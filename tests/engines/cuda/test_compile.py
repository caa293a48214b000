"""The kernels compile for every card we name; what is compiled is kept."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engines.cuda import kernels
from engines.cuda.device import open_device
from engines.errors import EngineUnavailableError
from tests.engines.cuda.toolkit import ARCHITECTURES, real_nvcc

ROOT = Path(__file__).parents[3]


def put_nvcc(folder, body):
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "nvcc"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A quick nvcc on PATH, whose output is its arguments, and a cache that is empty. Gives the
    arguments of each of its calls.
    """
    log = tmp_path / "calls"
    log.write_text("")
    put_nvcc(
        tmp_path / "bin",
        f'echo "$*" >> {log}\nwhile [ "$1" != -o ]; do shift; done\necho "compiled $*" > "$2"',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    return lambda: log.read_text().splitlines()


def kept(tmp_path):
    return sorted((tmp_path / "cache" / "kernels").iterdir())


def test_a_second_start_does_not_wait_for_nvcc(calls, tmp_path):
    first = kernels.load_or_compile("8.9")
    assert first.startswith(b"compiled ")
    assert kernels.load_or_compile("8.9") == first
    (call,) = calls()
    assert "-arch=sm_89" in call.split()
    assert "-fmad=false" in call.split()
    (path,) = kept(tmp_path)
    assert path.name.startswith("sm_89-")
    assert path.stat().st_mode & 0o077 == 0


def test_another_card_source_or_flag_is_compiled_anew(calls, tmp_path, monkeypatch):
    kernels.load_or_compile("8.9")
    kernels.load_or_compile("12.0")
    assert "-arch=sm_120" in calls()[-1].split()
    source = tmp_path / "kernels.cu"
    source.write_bytes(kernels.SOURCE.read_bytes() + b"// changed\n")
    monkeypatch.setattr(kernels, "SOURCE", source)
    kernels.load_or_compile("8.9")
    monkeypatch.setattr(kernels, "FLAGS", (*kernels.FLAGS, "-O1"))
    kernels.load_or_compile("8.9")
    assert len(calls()) == len(kept(tmp_path)) == 4


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_file_is_compiled_anew(calls, tmp_path, damage):
    first = kernels.load_or_compile("8.9")
    (path,) = kept(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?" if damage is None else damage)
    again = kernels.load_or_compile("8.9")
    assert len(calls()) == 2
    assert again.split()[0] == first.split()[0]
    assert kernels.load_or_compile("8.9") == again
    assert len(calls()) == 2


def test_without_a_cache_it_compiles_each_time(calls, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o777)
    (tmp_path / "cache").chmod(0o777)  # others may write code there
    kernels.load_or_compile("8.9")
    kernels.load_or_compile("8.9")
    assert len(calls()) == 2
    assert not list((tmp_path / "cache").rglob("*.cubin"))


def test_processes_that_start_together_do_not_disturb_each_other(calls, tmp_path):
    program = "from engines.cuda.kernels import load_or_compile as f; print(len(f('8.9')))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=env)
        for _ in range(4)
    ]
    said = {process.communicate(timeout=60)[0] for process in started}
    assert [process.returncode for process in started] == [0] * 4
    assert all(int(n) > 0 for n in said)
    assert 1 <= len(calls()) <= 4
    assert len(kept(tmp_path)) == 1  # and nothing half-written beside it
    assert kernels._read(kept(tmp_path)[0]) is not None


def test_nvcc_is_looked_for_in_three_places(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(kernels, "TOOLKIT", tmp_path / "toolkit")
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EngineUnavailableError, match=r"nvcc.*install the CUDA toolkit") as caught:
        kernels.load_or_compile("8.9")
    assert "\n" not in str(caught.value)
    last = put_nvcc(tmp_path / "toolkit", "")
    assert kernels.find_nvcc() == str(last)
    home = put_nvcc(tmp_path / "home" / "bin", "")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert kernels.find_nvcc() == str(home)
    first = put_nvcc(tmp_path / "path", "")
    assert kernels.find_nvcc() == str(first)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo 'nvcc fatal   : Unsupported gpu architecture' >&2; exit 1", "Unsupported gpu arch"),
        ("echo note; echo 'kernels.cu(3): error: what' >&2; exit 2", r"\(3\): error: what"),
        ("exit 3", "no word"),
        ("exit 0", "No such file"),
    ],
)
def test_what_nvcc_says_is_passed_on_in_a_line(tmp_path, monkeypatch, body, said):
    put_nvcc(tmp_path / "bin", body)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    with pytest.raises(EngineUnavailableError, match=said) as caught:
        kernels.load_or_compile("8.9")
    assert "\n" not in str(caught.value)
    assert not kept(tmp_path)


def test_what_the_card_does_not_take_is_not_kept(cuda, calls, tmp_path):
    device = open_device(0)
    with device.current(), pytest.raises(EngineUnavailableError, match="does not take"):
        kernels.Kernels(device)
    assert len(calls()) == 1
    assert not kept(tmp_path)


@pytest.mark.slow
def test_nvcc_compiles_for_every_architecture_without_a_warning_or_a_spill(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("nvcc needs g++")
    folder = tmp_path_factory.mktemp("toolkit")
    try:
        nvcc = real_nvcc(folder)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no nvcc that knows every architecture, and none can be fetched: {error}")
    flags = [flag for flag in kernels.FLAGS if flag != "-cubin"]
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    strict = ["-Werror", "all-warnings", "-Xptxas", "-v,-warn-spills", "--threads=0"]
    done = subprocess.run(
        [nvcc, "-fatbin", *flags, *targets, *strict, "-o", folder / "all", kernels.SOURCE],
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    found = re.findall(
        r"Compiling entry function '(\w+)' for 'sm_(\d+)'.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
        r"Used (\d+) registers",
        said,
        re.S,
    )
    assert len(found) == 4 * len(ARCHITECTURES), said
    for name, arch, stack, stores, loads, registers in found:
        print(f"sm_{arch} {name}: {registers} registers, {stack} bytes of stack")
        assert (int(stores), int(loads)) == (0, 0), (name, arch)
    assert {int(arch) for _, arch, *_ in found} == set(ARCHITECTURES)
