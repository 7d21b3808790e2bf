"""`pip install` of the project gives the core, whole and alone, to a program that has nothing else of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hidiffusion_ext import __version__

ROOT = Path(__file__).parents[2]
PROGRAM = """
import importlib.metadata, importlib.util, json, sys
sys.path.insert(0, sys.argv[1])
import hidiffusion_ext
from hidiffusion_ext.core import Options, Run, Schedule, hidiffusion, make_plan, map_unet
metadata = importlib.metadata.metadata("hidiffusion-ext")
print(json.dumps({
    "from": hidiffusion_ext.__file__,
    "versions": [hidiffusion_ext.__version__, metadata["Version"]],
    "needs": metadata.get_all("Requires-Dist"),
    "licence": [metadata["License-Expression"], metadata.get_all("License-File")],
    "webui": importlib.util.find_spec("hidiffusion_ext.webui") is not None,
}))
"""


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution found for hatchling" in result.stderr:
        pytest.skip("PyPI cannot be reached, and building a wheel takes hatchling from there")
    assert result.returncode == 0, result.stderr


def test_the_core_is_installed_and_imported_alone(tmp_path: Path) -> None:
    pip("wheel", "--no-deps", "--retries", "0", "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("*.whl")
    pip("install", "--no-deps", "--no-index", "--target", str(tmp_path / "site"), str(wheel))
    command = [sys.executable, "-I", "-c", PROGRAM, str(tmp_path / "site")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert Path(seen["from"]).is_relative_to(tmp_path)
    assert seen["versions"] == [__version__, __version__]
    assert seen["needs"] == ["einops", "torch>=2.1.2"]
    assert seen["licence"] == ["Apache-2.0", ["LICENSE"]]
    assert not seen["webui"]
    assert (tmp_path / "site" / "hidiffusion_ext" / "py.typed").exists()
