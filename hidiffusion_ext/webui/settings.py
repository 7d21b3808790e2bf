"""The extension's section on the host's Settings page: what new jobs start with, and what the console says.

The defaults are what the panel shows at start and what an API payload gets where it leaves a value out, because the
host takes both from the controls of the panel.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from modules import shared

from ..core.options import SETTINGS, Choice, OptionError, Options, Setting, plain
from ..hosts.native_first import UPSCALER, upscalers, usual_upscaler

SECTION = ("hidiffusion", "HiDiffusion")
CONSOLE = "hidiffusion_console"


def add_settings() -> None:
    """Adds the section; a second call changes nothing."""
    about = (
        "These are the values a new page starts with, and those of a job sent by another program where it says nothing."
    )
    shared.opts.add_option("hidiffusion_about", _in_section(shared.OptionHTML(about)))
    for setting in SETTINGS.values():
        shared.opts.add_option(_key(setting), _in_section(_default_of(setting)))
    names, label = {"choices": upscalers()}, "HiDiffusion: upscaler of the method Native first"
    enlarging = shared.OptionInfo(usual_upscaler(), label, gr.Dropdown, names)
    shared.opts.add_option(UPSCALER, _in_section(enlarging.info("enlarges the small picture before it is drawn over")))
    label = "HiDiffusion: tell on the console what each picture gets"
    console = shared.OptionInfo(True, label, gr.Checkbox).info("problems are always told")
    shared.opts.add_option(CONSOLE, _in_section(console))


def default(setting: Setting) -> Any:
    """The plain default chosen on the Settings page; the setting's own where nothing usable is chosen."""
    chosen = getattr(shared.opts, _key(setting), None)
    try:
        return plain(getattr(Options.from_mapping({setting.name: chosen}), setting.name))
    except OptionError:
        return plain(setting.default)


def console_is_on() -> bool:
    """Whether the console gets a line for each sampling pass."""
    return getattr(shared.opts, CONSOLE, True)


def _key(setting: Setting) -> str:
    return f"hidiffusion_{setting.name}"


def _in_section(option: Any) -> Any:
    option.section = SECTION
    return option


def _default_of(setting: Setting) -> Any:
    """The option for a setting's default; its label names the extension, as the page's search looks for labels."""
    if isinstance(setting.default, Choice):
        component, limits = gr.Radio, {"choices": [choice.value for choice in type(setting.default)]}
    elif isinstance(setting.default, bool):
        component, limits = gr.Checkbox, {}
    else:
        limits = {"minimum": setting.minimum, "maximum": setting.maximum, "step": setting.step}
        component = gr.Slider
    option = shared.OptionInfo(plain(setting.default), f"HiDiffusion: {setting.label}", component, limits)
    return option.info(setting.help).needs_reload_ui()
