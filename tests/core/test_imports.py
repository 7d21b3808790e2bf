"""The core works in any Python program: no WebUI, gradio or ldm is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"modules", "gradio", "ldm", "sgm", "backend", "ldm_patched", "diffusers", "fastapi"}:
            raise ImportError(f"the core must not import {name}")

sys.meta_path.insert(0, Blocked())
from hidiffusion_ext.core import Options, hidiffusion, make_plan, map_unet
print(Options().preset.value)
"""


def test_the_core_imports_torch_and_einops_alone() -> None:
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=False)
    assert result.stdout == "Auto\n", result.stderr
