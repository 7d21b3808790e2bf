"""Scripts of extensions: the class they inherit from, where they are loaded from, and who calls their hooks."""

from __future__ import annotations

import configparser
import importlib.util
import inspect
import re
import sys
from collections import namedtuple
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from modules import errors, paths, script_callbacks

AlwaysVisible = object()

HOOKS = (
    *("setup", "before_process", "process", "before_process_batch", "process_batch"),
    *("process_before_every_sampling", "before_hr", "postprocess_batch", "postprocess"),
)
"""Those that somebody here has, in the order of a job; called for scripts that are always on."""


class Script:
    """What an extension inherits from; a script that is chosen in the dropdown has `run(p, *args)`, others hooks."""

    name: str | None = None  # title in lower case, set when the UI is built
    filename: str = ""
    args_from: int = 0  # this script's slice of p.script_args
    args_to: int = 0
    alwayson = False
    is_img2img = False
    infotext_fields: list | None = None  # [(component, name or function)], set in ui()
    api_info: dict | None = None
    controls: list | None = None

    def show(self, is_img2img: bool) -> Any:
        return True

    def elem_id(self, item_id: str) -> str:
        both_tabs = self.show(True) == self.show(False)
        tab = ("img2img_" if self.is_img2img else "txt2img_") if both_tabs else ""
        title = re.sub(r"[^a-z_0-9]", "", re.sub(r"\s", "_", self.title().lower()))
        return f"script_{tab}{title}_{item_id}"


for _name in HOOKS:
    setattr(Script, _name, lambda self, p, *args, **kwargs: None)


class ScriptRunner:
    """The scripts of one tab. `inputs[0]` is the dropdown, then every script's controls one after another."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.selectable_scripts: list[Script] = []
        self.alwayson_scripts: list[Script] = []
        self.infotext_fields: list = []
        self.inputs: list = [None]

    def initialize_scripts(self, is_img2img: bool) -> None:
        for data in scripts_data:
            script = data.script_class()
            script.filename, script.is_img2img = data.path, is_img2img
            visibility = script.show(is_img2img)
            if not visibility:
                continue
            script.alwayson = visibility == AlwaysVisible
            self.scripts.append(script)
            (self.alwayson_scripts if script.alwayson else self.selectable_scripts).append(script)

    def create_script_ui(self, script: Script) -> None:
        """One script's controls, and what is told of them at GET /sdapi/v1/script-info."""
        script.name, script.controls = script.title().lower(), script.ui(script.is_img2img)
        script.args_from, script.args_to = len(self.inputs), len(self.inputs) + len(script.controls)
        script.api_info = {"name": script.name, "is_alwayson": script.alwayson, "is_img2img": script.is_img2img}
        script.api_info["args"] = [_describe(control) for control in script.controls]
        self.infotext_fields += script.infotext_fields or []
        self.inputs += script.controls

    def setup_ui(self) -> list:
        """Build the UI of all scripts inside the current Blocks; returns the inputs of the generate button."""
        for script in self.alwayson_scripts:
            with gr.Group():
                self.create_script_ui(script)
        titles = ["None", *(script.title() for script in self.selectable_scripts)]
        self.inputs[0] = gr.Dropdown(titles, value="None", type="index", label="Script", elem_id="script_list")
        for script in self.selectable_scripts:
            with gr.Group(visible=False):
                self.create_script_ui(script)
        return self.inputs

    def run(self, p, *args):
        """Run the script chosen in the dropdown (args[0] is its index + 1); None when none is."""
        if not args[0]:
            return None
        script = self.selectable_scripts[args[0] - 1]
        return script.run(p, *args[script.args_from : script.args_to])

    def script(self, title: str) -> Script | None:
        return next((script for script in self.scripts if script.name == title.lower()), None)

    def call_hook(self, hook: str, p, *given, **kwargs) -> None:
        """Call `hook` of every always-on script; an exception is reported and swallowed."""
        for script in self.alwayson_scripts:
            try:
                getattr(script, hook)(p, *given, *p.script_args[script.args_from : script.args_to], **kwargs)
            except Exception:
                errors.report(f"{script.filename}: {hook} failed", exc_info=True)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Each hook's name is a method that calls it."""
        if name not in HOOKS:
            raise AttributeError(name)
        return partial(self.call_hook, name)


def _describe(control: gr.components.Component) -> dict:
    """One argument of a script."""
    info = {"label": control.label or ""}
    info |= {field: getattr(control, field, None) for field in ("value", "minimum", "maximum", "step")}
    choices = getattr(control, "choices", None)
    info["choices"] = None if choices is None else [c[0] if isinstance(c, tuple) else c for c in choices]
    return info


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
    for callbacks in script_callbacks.callback_map.values():
        callbacks.clear()
    for folder in [paths.script_path, *_in_order(extension_dirs)]:
        for path in sorted((Path(folder) / "scripts").glob("*.py")):
            before = sys.path
            try:
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
    """The extensions' folders; those that name others of them as `Before` in their metadata.ini come first."""
    others = {Path(folder).name for folder in folders}

    def is_later(folder: str) -> bool:
        metadata = configparser.ConfigParser()
        metadata.read(Path(folder) / "metadata.ini")
        return others.isdisjoint(" ".join(section.get("Before", "") for section in metadata.values()).split())

    return sorted(folders, key=is_later)
