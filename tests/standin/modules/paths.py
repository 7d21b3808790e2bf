"""Folders of the stand-in: its own scripts, and a temporary place for what the host writes (params.txt)."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

script_path = str(Path(__file__).resolve().parent.parent)
data_path = tempfile.mkdtemp(prefix="standin-data-")
atexit.register(shutil.rmtree, data_path, ignore_errors=True)
