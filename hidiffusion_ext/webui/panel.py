"""The accordion, made from `SETTINGS`: the live plan, then one control per setting.

The plan is drawn in the browser (`javascript/hidiffusion.js`) from what the route in `plan_route` answers. Defaults
come from the Settings page alone: the controls stay out of the host's own file of defaults, ui-config.json, which would
keep the values and ranges of the first start for ever.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from modules import ui_components

from ..core.options import SETTINGS, Choice, Setting
from .plan_route import PAGE_KEY, PATH
from .settings import default

InputAccordion: Any = getattr(ui_components, "InputAccordion", None)
"""The host's accordion with a checkbox in its header; None before AUTOMATIC1111's version 1.7."""


def build_panel(elem_id: Callable[[str], str]) -> list[Any]:
    """Builds the accordion and returns its controls in the order of `SETTINGS`: the values given to every hook.

    Args:
        elem_id: Makes a page-wide unique id from a control's name.
    """
    enabled, *rest = SETTINGS.values()
    with InputAccordion(default(enabled), label="HiDiffusion", elem_id=elem_id("panel")) as accordion:
        gr.HTML(_plan(elem_id), elem_id=elem_id("plan"))
        controls = _controls([setting for setting in rest if not setting.advanced], elem_id)
        with gr.Accordion("Advanced", open=False, elem_id=elem_id("advanced")):
            controls |= _controls([setting for setting in rest if setting.advanced], elem_id)
    ordered: list[Any] = [accordion, *(controls[setting.name] for setting in rest)]
    for component in [accordion.accordion, *ordered]:
        component.do_not_save_to_config = True
    return ordered


def _plan(elem_id: Callable[[str], str]) -> str:
    """The place of the plan, with all that the browser has to know."""
    told = {
        "path": f".{PATH}",
        "key": PAGE_KEY,
        "panel": elem_id("panel"),
        "advanced": elem_id("advanced"),
        "settings": {name: elem_id(name) for name in SETTINGS if name != "enabled"},
    }
    return f'<div class="hidiffusion-plan" data-told="{html.escape(json.dumps(told))}"></div>'


def _controls(settings: list[Setting], elem_id: Callable[[str], str]) -> dict[str, Any]:
    """Controls by name: choices first, then the switches side by side, then the numbers."""
    choices = [setting for setting in settings if isinstance(setting.default, Choice)]
    switches = [setting for setting in settings if isinstance(setting.default, bool)]
    numbers = [setting for setting in settings if setting not in choices and setting not in switches]
    controls = {setting.name: _control(setting, elem_id(setting.name)) for setting in choices}
    with gr.Row():
        controls |= {setting.name: _control(setting, elem_id(setting.name)) for setting in switches}
    return controls | {setting.name: _control(setting, elem_id(setting.name)) for setting in numbers}


def _control(setting: Setting, elem_id: str) -> Any:
    common: dict[str, Any] = {
        "label": setting.label,
        "info": setting.help,
        "elem_id": elem_id,
        "value": default(setting),
    }
    if isinstance(setting.default, Choice):
        return gr.Radio([choice.value for choice in type(setting.default)], **common)
    if isinstance(setting.default, bool):
        return gr.Checkbox(elem_classes=["hidiffusion-switch"], **common)
    limits: dict[str, Any] = {"minimum": setting.minimum, "maximum": setting.maximum, "step": setting.step}
    return gr.Slider(**limits, **common)
