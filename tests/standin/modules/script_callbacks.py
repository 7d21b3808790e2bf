"""Callbacks that extensions register at import. A callback that raises is reported and skipped."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modules import errors


class CFGDenoiserParams:
    """What is about to enter the model: `x [(conds + images), C, H, W]`, `sigma [...]` (a timestep for DDIM)."""

    def __init__(
        self, x, image_cond, sigma, sampling_step, total_sampling_steps, text_cond, text_uncond, denoiser=None
    ):
        self.x, self.image_cond, self.sigma = x, image_cond, sigma
        self.sampling_step, self.total_sampling_steps = sampling_step, total_sampling_steps
        self.text_cond, self.text_uncond, self.denoiser = text_cond, text_uncond, denoiser


class CFGDenoisedParams:
    """What the model gave back, before guidance."""

    def __init__(self, x, sampling_step, total_sampling_steps, inner_model):
        self.x, self.inner_model = x, inner_model
        self.sampling_step, self.total_sampling_steps = sampling_step, total_sampling_steps


class AfterCFGCallbackParams:
    """The guided result `x [images, C, H, W]`; assign `x` to change it."""

    def __init__(self, x, sampling_step, total_sampling_steps):
        self.x, self.sampling_step, self.total_sampling_steps = x, sampling_step, total_sampling_steps


@dataclass
class ScriptCallback:
    script: str
    callback: Callable[..., Any]


callback_map: dict[str, list[ScriptCallback]] = {}


def clear_callbacks() -> None:
    for callbacks in callback_map.values():
        callbacks.clear()


def _caller() -> str:
    """File that called into this module."""
    return next((frame.filename for frame in inspect.stack() if frame.filename != __file__), "unknown file")


def _category(name: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """What registers a callback of this kind, and what calls all of them."""
    callbacks = callback_map.setdefault(f"callbacks_{name}", [])

    def on(callback: Callable[..., Any], *, name: str | None = None) -> None:
        callbacks.append(ScriptCallback(_caller(), callback))

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
on_script_unloaded, script_unloaded_callback = _category("script_unloaded")
on_cfg_denoiser, cfg_denoiser_callback = _category("cfg_denoiser")
on_cfg_denoised, cfg_denoised_callback = _category("cfg_denoised")
on_cfg_after_cfg, cfg_after_cfg_callback = _category("cfg_after_cfg")
