"""The accordion, made from `SETTINGS`: one control per setting, in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from modules.ui_components import InputAccordion

from ..core.options import SETTINGS, Choice, Setting


def build_panel(elem_id: Callable[[str], str]) -> list[Any]:
    """Builds the accordion and returns its controls: the values the host passes to every hook.

    Args:
        elem_id: Makes a page-wide unique id from a control's name.
    """
    enabled, *rest = SETTINGS.values()
    with InputAccordion(enabled.default, label="HiDiffusion", elem_id=elem_id("panel")) as accordion:
        controls = [_control(setting, elem_id(setting.name)) for setting in rest]
    return [accordion, *controls]


def _control(setting: Setting, elem_id: str) -> Any:
    common: dict[str, Any] = {"label": setting.label, "info": setting.help, "elem_id": elem_id}
    if isinstance(setting.default, Choice):
        return gr.Radio([choice.value for choice in type(setting.default)], value=setting.default.value, **common)
    if isinstance(setting.default, bool):
        return gr.Checkbox(value=setting.default, **common)
    limits: dict[str, Any] = {"minimum": setting.minimum, "maximum": setting.maximum, "step": setting.step}
    return gr.Slider(value=setting.default, **limits, **common)
