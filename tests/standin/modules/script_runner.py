"""Builds the panels of one tab's scripts and calls their hooks. Import it from `scripts`."""

from __future__ import annotations

import os
from collections.abc import Callable

import gradio as gr

from modules import errors
from modules.script_base import HOOKS, AlwaysVisible, Script, do_nothing


def wrap_call(func: Callable, filename: str, funcname: str, *args, default=None, **kwargs):
    try:
        return func(*args, **kwargs)
    except Exception:
        errors.report(f"{filename}: {funcname} failed", exc_info=True)
    return default


class ScriptRunner:
    """The scripts of one tab. `inputs[0]` is the dropdown, then every script's controls one after another."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.selectable_scripts: list[Script] = []
        self.alwayson_scripts: list[Script] = []
        self.titles: list[str] = []
        self.title_map: dict[str, Script] = {}
        self.infotext_fields: list = []
        self.paste_field_names: list[str] = []
        self.inputs: list = [None]

    def initialize_scripts(self, is_img2img: bool) -> None:
        for scripts in (self.scripts, self.alwayson_scripts, self.selectable_scripts):
            scripts.clear()
        from modules.scripts import scripts_data

        for data in scripts_data:
            try:
                script = data.script_class()
            except Exception:
                errors.report(f"{data.path}: the script could not be created", exc_info=True)
                continue
            script.filename, script.is_img2img, script.is_txt2img = data.path, is_img2img, not is_img2img
            script.tabname = "img2img" if is_img2img else "txt2img"
            visibility = script.show(is_img2img)
            if not visibility:
                continue
            script.alwayson = visibility == AlwaysVisible
            self.scripts.append(script)
            (self.alwayson_scripts if script.alwayson else self.selectable_scripts).append(script)

    def create_script_ui(self, script: Script) -> None:
        script.args_from = script.args_to = len(self.inputs)
        try:
            script.controls = controls = wrap_call(script.ui, script.filename, "ui", script.is_img2img)
            if controls is None:
                return
            script.name = wrap_call(script.title, script.filename, "title", default=script.filename).lower()
            script.api_info = {
                "name": script.name,
                "is_alwayson": script.alwayson,
                "is_img2img": script.is_img2img,
                "args": [_describe(control) for control in controls],
            }
            self.infotext_fields += script.infotext_fields or []
            self.paste_field_names += script.paste_field_names or []
            self.inputs += controls
            script.args_to = len(self.inputs)
        except Exception:
            errors.report(f"{script.filename}: no UI", exc_info=True)

    def setup_ui_for_section(self, section: str | None, scriptlist: list[Script] | None = None) -> None:
        for script in self.alwayson_scripts if scriptlist is None else scriptlist:
            if script.alwayson and script.section != section:
                continue
            if script.create_group:
                with gr.Group(visible=script.alwayson) as script.group:
                    self.create_script_ui(script)
            else:
                self.create_script_ui(script)

    def prepare_ui(self) -> None:
        self.inputs = [None]

    def setup_ui(self) -> list:
        """Build the UI of all scripts inside the current Blocks; returns the inputs of the generate button."""
        titles = [wrap_call(s.title, s.filename, "title") or s.filename for s in self.scripts]
        self.title_map = {title.lower(): script for title, script in zip(titles, self.scripts)}
        self.titles = [wrap_call(s.title, s.filename, "title") or s.filename for s in self.selectable_scripts]
        self.setup_ui_for_section(None)
        dropdown = gr.Dropdown(
            label="Script", elem_id="script_list", choices=["None", *self.titles], value="None", type="index"
        )
        self.inputs[0] = dropdown
        self.setup_ui_for_section(None, self.selectable_scripts)
        if self.selectable_scripts:
            dropdown.change(
                lambda i: [gr.update(visible=n + 1 == i) for n in range(len(self.titles))],
                inputs=[dropdown],
                outputs=[s.group for s in self.selectable_scripts],
            )
        return self.inputs

    def run(self, p, *args):
        """Run the script chosen in the dropdown (args[0] is its index + 1); None when none is."""
        if not args[0]:
            return None
        script = self.selectable_scripts[args[0] - 1]
        return script.run(p, *args[script.args_from : script.args_to])

    def script(self, title: str) -> Script | None:
        return self.title_map.get(title.lower())

    def call_hook(self, hook: str, p, *given, **kwargs) -> None:
        """Call `hook` of every always-on script that overrides it; an exception is reported and swallowed."""
        for script in self.alwayson_scripts:
            if getattr(type(script), hook) is do_nothing or (hook == "setup" and p.is_api and script.setup_for_ui_only):
                continue
            try:
                getattr(script, hook)(p, *given, *p.script_args[script.args_from : script.args_to], **kwargs)
            except Exception:
                errors.report(f"{script.filename}: {hook} failed", exc_info=True)

    def setup_scrips(self, p, *, is_ui: bool = True) -> None:
        self.call_hook("setup", p)

    def postprocess_batch(self, p, images, **kwargs) -> None:
        self.call_hook("postprocess_batch", p, images=images, **kwargs)


def _runner_method(hook: str) -> Callable:
    def call(self: ScriptRunner, p, *given, **kwargs) -> None:
        self.call_hook(hook, p, *given, **kwargs)

    return call


for _name in HOOKS.keys() - {"setup", "postprocess_batch"}:
    setattr(ScriptRunner, _name, _runner_method(_name))


def _describe(control: gr.components.Component) -> dict:
    """One argument as GET /sdapi/v1/script-info shows it."""
    control.custom_script_source = os.path.basename(__file__)
    info = {"label": control.label or ""}
    info |= {field: getattr(control, field, None) for field in ("value", "minimum", "maximum", "step")}
    choices = getattr(control, "choices", None)
    info["choices"] = None if choices is None else [c[0] if isinstance(c, tuple) else c for c in choices]
    return info
