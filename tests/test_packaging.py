"""The wheel holds the program, its models and nothing else, and says what it needs."""

import ast
import configparser
import email
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "engines", "tools")
# The first setuptools that takes `license` as an expression (PEP 639).
LEAST_SETUPTOOLS = (77,)


def project_files():
    """Every file that a clone would have, and those that are about to be added."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return sorted(path for line in done.stdout.splitlines() if (path := ROOT / line).is_file())


def relative(paths):
    return {path.relative_to(ROOT).as_posix() for path in paths}


def source_files():
    """What must be in the wheel: code, models, cards, frames, and the marks of typed packages."""
    paths = [p for p in project_files() if p.relative_to(ROOT).parts[0] in PACKAGES]
    wanted = {".py", ".onnx", ".yaml", ".jpg", ".typed", ".html", ".js", ".css", ".svg", ".cu"}
    return {name for name in relative(paths) if Path(name).suffix in wanted or "py.typed" in name}


def has_build_tools():
    try:
        found = version("setuptools")
        version("build")
    except PackageNotFoundError:
        return False
    return tuple(int(n) for n in re.findall(r"\d+", found)[:1]) >= LEAST_SETUPTOOLS


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that no build folder of ours can leak into it or be left behind."""
    folder = tmp_path_factory.mktemp("build")
    tree, out = folder / "tree", folder / "out"
    for path in project_files():
        target = tree / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", out, tree]
    if has_build_tools():
        words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", out, tree]
    done = subprocess.run(
        [str(w) for w in words], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode and re.search("No matching distribution|Temporary failure", done.stderr):
        pytest.skip("setuptools is too old here, and no package index can be reached for a newer")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        yield file


@pytest.fixture(scope="module")
def metadata(wheel):
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(wheel.read(name))


def test_packages_are_listed_one_by_one():
    """A folder that setup.cfg forgets is missing from the wheel, and only from there."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    folders = {
        ".".join(path.relative_to(ROOT).parent.parts)
        for path in project_files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PACKAGES
    }
    assert sorted(listed) == sorted(folders)
    for name in folders:
        assert ROOT.joinpath(*name.split("."), "__init__.py").is_file(), name


def test_wheel_holds_the_tree_and_nothing_else(wheel):
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert sorted(inside) == sorted(source_files())


def test_wheel_holds_what_a_run_needs(wheel):
    names = wheel.namelist()
    for name in ("engines/models/voc.onnx", "engines/models/voc.yaml", "pipeline/py.typed"):
        assert name in names
    assert (
        sum(re.fullmatch(r"engines/guard_frames/\w+\.jpg", name) is not None for name in names) == 6
    )
    assert wheel.read("engines/models/voc.onnx") == (ROOT / "engines/models/voc.onnx").read_bytes()


def test_wheel_is_pure_and_licensed(wheel):
    names = wheel.namelist()
    (tags,) = [n for n in names if n.endswith(".dist-info/WHEEL")]
    assert b"Tag: py3-none-any" in wheel.read(tags)
    for name in ("LICENSE", "NOTICE"):
        assert any(n.endswith(f".dist-info/licenses/{name}") for n in names), names


def test_wheel_has_the_program(wheel):
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt")]
    assert "streamseg = tools.cli:main" in wheel.read(name).decode()
    tree = ast.parse(wheel.read("tools/cli.py"))
    assert "main" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_metadata(metadata):
    assert metadata["Name"] == "streamseg"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata.get_payload().strip(), "the README"
    assert {"onnxruntime", "models", "tensorrt", "dev"} <= set(metadata.get_all("Provides-Extra"))


def test_requirements_are_what_is_imported(metadata):
    """What the packages import at their top or later, by the names that an index knows."""
    distributions = {
        "cuda": "cuda-bindings",
        "cv2": "opencv-python",
        "yaml": "pyyaml",
        "typing_extensions": "pydantic",  # which cannot do without it
    }
    own = {*PACKAGES, *sys.stdlib_module_names}
    imported = set()
    for name in source_files():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
                modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    modules = [node.module]
                imported |= {m.split(".")[0] for m in modules} - own
    required = {
        re.match(r"[\w.-]+", line)[0].lower().replace("_", "-")
        for line in metadata.get_all("Requires-Dist")
    }
    missing = {m for m in imported if distributions.get(m, m).replace("_", "-") not in required}
    assert not missing


def test_the_build_asks_for_a_setuptools_that_can_build_it():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (least,) = re.findall(r'"setuptools>=([\d.]+)"', text.partition("[project]")[0])
    assert tuple(int(n) for n in least.split(".")) >= LEAST_SETUPTOOLS
