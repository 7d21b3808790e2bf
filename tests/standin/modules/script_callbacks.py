"""Callbacks that extensions register at import. A callback that raises is reported and skipped."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import make_dataclass
from typing import Any

from modules import errors

_STEPS = ["sampling_step", "total_sampling_steps"]
CFGDenoiserParams = make_dataclass(
    "CFGDenoiserParams", ["x", "image_cond", "sigma", *_STEPS, "text_cond", "text_uncond", ("denoiser", Any, None)]
)
"""What is about to enter the model: `x [(conds + images), C, H, W]`, `sigma [...]` (a timestep for DDIM)."""

CFGDenoisedParams = make_dataclass("CFGDenoisedParams", ["x", *_STEPS, "inner_model"])
"""What the model gave back, before guidance."""

AfterCFGCallbackParams = make_dataclass("AfterCFGCallbackParams", ["x", *_STEPS])
"""The guided result `x [images, C, H, W]`; assign `x` to change it."""

ScriptCallback = namedtuple("ScriptCallback", ["script", "callback"])

callback_map: dict[str, list[ScriptCallback]] = {}


def _category(name: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """What registers a callback of this kind, and what calls all of them."""
    callbacks = callback_map.setdefault(f"callbacks_{name}", [])

    def on(callback: Callable[..., Any]) -> None:
        callbacks.append(ScriptCallback(callback.__module__, callback))

    def run(*args: Any) -> None:
        for one in list(callbacks):
            try:
                one.callback(*args)
            except Exception:
                errors.report(f"callback {name} of {one.script} failed", exc_info=True)

    return on, run


on_app_started, app_started_callback = _category("app_started")
on_ui_settings, ui_settings_callback = _category("ui_settings")
on_model_loaded, model_loaded_callback = _category("model_loaded")
on_cfg_denoiser, cfg_denoiser_callback = _category("cfg_denoiser")
on_cfg_denoised, cfg_denoised_callback = _category("cfg_denoised")
on_cfg_after_cfg, cfg_after_cfg_callback = _category("cfg_after_cfg")
