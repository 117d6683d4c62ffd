"""That the wheel holds all that the package needs: built from a copy, installed into an empty environment, and used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLIP = "backward_3749c843.flac"


def run(*command: object, folder: Path) -> str:
    """What a command says on standard output, away from the checkout and without its paths."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because building writes beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("src", "recipes"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / "copy" / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "copy")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, folder / "copy", folder=folder)
    (built,) = folder.glob("spectrim-*.whl")
    return built


def test_it_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    package = ROOT / "src" / "spectrim"
    there = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    there |= {f"recipes/{path.relative_to(ROOT / 'recipes').as_posix()}" for path in (ROOT / "recipes").rglob("*.yaml")}
    held = {
        name.removeprefix("spectrim/") for name in zipfile.ZipFile(wheel).namelist() if name.startswith("spectrim/")
    }
    assert held == {name for name in there if "__pycache__" not in name}
    assert "recipes/ast-esc50.yaml" in held and "assets/spectrim-mini/model.safetensors" in held


def test_installed_in_an_empty_environment_it_tags_a_packaged_clip(wheel: Path, tmp_path: Path) -> None:
    """The other packages are seen through a path file, so that nothing is loaded; the checkout is not."""
    venv.create(tmp_path / "empty", with_pip=False)
    python = tmp_path / "empty" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, folder=tmp_path)
    packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=tmp_path).strip()
    )
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import spectrim; print(spectrim.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path / "empty")
    command = python.with_name("spectrim")
    assert "spectrim-mini" in run(command, "info", folder=tmp_path)
    clip = packages / "spectrim" / "assets" / "demo" / CLIP
    rows = run(command, "predict", clip, "--format", "csv", "--top", "1", folder=tmp_path).splitlines()
    assert len(rows) == 2 and ",backward," in rows[1]
