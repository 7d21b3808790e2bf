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


class ExtraNoiseParams:
    def __init__(self, noise, x, xi):
        self.noise, self.x, self.xi = noise, x, xi


@dataclass
class ScriptCallback:
    script: str
    callback: Callable[..., Any]


CATEGORIES = (
    "app_started",
    "on_reload",
    "model_loaded",
    "ui_tabs",
    "ui_settings",
    "before_ui",
    "extra_noise",
    "cfg_denoiser",
    "cfg_denoised",
    "cfg_after_cfg",
    "before_component",
    "after_component",
    "infotext_pasted",
    "script_unloaded",
    "list_optimizers",
    "list_unets",
    "image_saved",
    "before_image_saved",
)
callback_map: dict[str, list[ScriptCallback]] = {f"callbacks_{name}": [] for name in CATEGORIES}


def clear_callbacks() -> None:
    for callbacks in callback_map.values():
        callbacks.clear()


def _caller() -> str:
    """File that called into this module."""
    return next((frame.filename for frame in inspect.stack() if frame.filename != __file__), "unknown file")


def _register(category: str) -> Callable[..., None]:
    def on(callback: Callable[..., Any], *, name: str | None = None) -> None:
        callback_map[f"callbacks_{category}"].append(ScriptCallback(_caller(), callback))

    on.__doc__ = f"Register `callback` for {category}."
    return on


def _run(category: str, *, backwards: bool = False) -> Callable[..., list[Any]]:
    def run(*args: Any, **kwargs: Any) -> list[Any]:
        callbacks = list(callback_map[f"callbacks_{category}"])
        results = []
        for c in reversed(callbacks) if backwards else callbacks:
            try:
                results.append(c.callback(*args, **kwargs))
            except Exception:
                errors.report(f"callback {category} of {c.script} failed", exc_info=True)
        return results

    run.__doc__ = f"Call what is registered for {category}{', last first' if backwards else ''}."
    return run


def remove_current_script_callbacks() -> None:
    """Forget every callback that the calling file registered."""
    script = _caller()
    for callbacks in callback_map.values():
        callbacks[:] = [c for c in callbacks if c.script != script]


def remove_callbacks_for_function(callback_func: Callable[..., Any]) -> None:
    for callbacks in callback_map.values():
        callbacks[:] = [c for c in callbacks if c.callback != callback_func]


on_app_started, app_started_callback = _register("app_started"), _run("app_started")
on_before_reload, app_reload_callback = _register("on_reload"), _run("on_reload")
on_model_loaded, model_loaded_callback = _register("model_loaded"), _run("model_loaded")
on_ui_tabs, ui_tabs_callback = _register("ui_tabs"), _run("ui_tabs")
on_ui_settings, ui_settings_callback = _register("ui_settings"), _run("ui_settings")
on_before_ui, before_ui_callback = _register("before_ui"), _run("before_ui", backwards=True)
on_extra_noise, extra_noise_callback = _register("extra_noise"), _run("extra_noise")
on_cfg_denoiser, cfg_denoiser_callback = _register("cfg_denoiser"), _run("cfg_denoiser")
on_cfg_denoised, cfg_denoised_callback = _register("cfg_denoised"), _run("cfg_denoised")
on_cfg_after_cfg, cfg_after_cfg_callback = _register("cfg_after_cfg"), _run("cfg_after_cfg")
on_before_component, before_component_callback = _register("before_component"), _run("before_component")
on_after_component, after_component_callback = _register("after_component"), _run("after_component")
on_infotext_pasted, infotext_pasted_callback = _register("infotext_pasted"), _run("infotext_pasted")
on_script_unloaded, script_unloaded_callback = _register("script_unloaded"), _run("script_unloaded", backwards=True)
on_list_optimizers, list_optimizers_callback = _register("list_optimizers"), _run("list_optimizers")
on_list_unets, list_unets_callback = _register("list_unets"), _run("list_unets")
on_image_saved, image_saved_callback = _register("image_saved"), _run("image_saved")
on_before_image_saved, before_image_saved_callback = _register("before_image_saved"), _run("before_image_saved")
