"""Loads the scripts of extensions."""

from __future__ import annotations

import configparser
import importlib.util
import inspect
import sys
from collections import namedtuple
from pathlib import Path

from modules import errors, paths, script_callbacks
from modules.script_base import AlwaysVisible, Script  # noqa: F401
from modules.script_runner import ScriptRunner, wrap_call  # noqa: F401

ScriptClassData = namedtuple("ScriptClassData", ["script_class", "path", "basedir", "module"])
extension_dirs: list[str] = []  # extra folders to load; set by server.py
scripts_data: list[ScriptClassData] = []
scripts_txt2img: ScriptRunner
scripts_img2img: ScriptRunner


def load_scripts() -> None:
    """Execute `scripts/*.py` of the stand-in and of each extension folder; an error in one is reported.

    The extension's folder is on sys.path during the import only. Modules are not put in sys.modules.
    """
    global scripts_txt2img, scripts_img2img
    scripts_data.clear()
    script_callbacks.clear_callbacks()
    for folder in [paths.script_path, *_in_order(extension_dirs)]:
        for path in sorted((Path(folder) / "scripts").glob("*.py")):
            before = sys.path
            try:
                if folder != paths.script_path:
                    sys.path = [str(folder), *before]
                spec = importlib.util.spec_from_file_location(path.name, path)
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                for value in list(vars(module).values()):
                    if inspect.isclass(value) and issubclass(value, Script):
                        scripts_data.append(ScriptClassData(value, str(path), str(folder), module))
            except Exception:
                errors.report(f"{path.name} could not be loaded", exc_info=True)
            finally:
                sys.path = before
    scripts_txt2img, scripts_img2img = ScriptRunner(), ScriptRunner()


def _in_order(folders: list[str]) -> list[str]:
    """The extensions' folders; one that names others as `Before` in its metadata.ini comes before them."""
    ordered: list[str] = []

    def add(folder: str) -> None:
        for other in folders:
            if other not in ordered and Path(folder).name in _before(other):
                add(other)
        if folder not in ordered:
            ordered.append(folder)

    for folder in folders:
        add(folder)
    return ordered


def _before(folder: str) -> list[str]:
    metadata = configparser.ConfigParser()
    metadata.read(Path(folder) / "metadata.ini")
    return " ".join(section.get("Before", "") for section in metadata.values()).split()
