"""`GET /hidiffusion/v1/plan`: what would be active in a job of the given size with the model in memory.

    /hidiffusion/v1/plan?width=512&height=768&enable_hr=true&hr_scale=2&steps=20&scheduler=Karras&method=ScaleCrafter

The parameters are named as in the payload of /sdapi/v1/txt2img and img2img, the settings as in `Options`. Sizes and
noise levels are worked out by the host's own functions. Nothing is loaded, nothing is changed, and no lock is waited
for, so it answers while a picture is being made.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from modules import processing, sd_models, sd_samplers_common, ui

from ..core import OptionError, Options, Refused, Schedule
from ..core.native_first import MAKE_TWO
from ..core.options import SETTINGS, Setting, quoted
from ..core.sizes import CELL
from ..hosts.asking import Asking
from ..hosts.first_pass import is_shortened, needed_steps
from ..hosts.native_first import InOnePass, arrangement
from ..hosts.schedules import NothingSampled, hires_latent, hires_steps, in_hires_pass
from .plan_view import PlannedPass, view

PATH = "/hidiffusion/v1/plan"

PAGE_KEY = secrets.token_urlsafe()
"""What the WebUI's own page shows instead of the API's password: whoever got the page, has passed the page's login."""

LARGEST = 16384
"""Pixels per side; more than any host can make."""

JOB = {
    setting.name: setting
    for setting in (
        Setting(512, "Width", "Pixels.", 1, LARGEST, name="width"),
        Setting(512, "Height", "Pixels.", 1, LARGEST, name="height"),
        Setting(20, "Steps", "Sampling steps.", 1, 1000, name="steps"),
        Setting(False, "Hires. fix", "Whether there is a hires pass.", name="enable_hr"),
        Setting(2.0, "Upscale by", "Hires pass: how many times the first one's sides.", 1.0, 8.0, name="hr_scale"),
        Setting(0, "Resize width to", "Hires pass, instead of a scale: pixels.", 0, LARGEST, name="hr_resize_x"),
        Setting(0, "Resize height to", "Hires pass, instead of a scale: pixels.", 0, LARGEST, name="hr_resize_y"),
        Setting(0, "Hires steps", "0: as many as in the first pass.", 0, 1000, name="hr_second_pass_steps"),
        Setting(
            0.75,
            "Denoising strength",
            "For img2img or a hires pass, and only then.",
            0.0,
            1.0,
            name="denoising_strength",
        ),
        Setting(1.0, "Resize by", "For img2img: multiplies width and height.", 0.01, 16.0, name="scale_by"),
        Setting(7.0, "CFG scale", "At 1 nothing is guided.", -1000.0, 1000.0, name="cfg_scale"),
        Setting(1.0, "Hires CFG", "The hires pass's, in WebUIs that have one.", -1000.0, 1000.0, name="hr_cfg"),
        *(
            Setting(0.0, name, "As in a payload; the WebUI's own setting if left out.", 0.0, 1000.0, name=name)
            for name in ("s_min_uncond", "s_churn", "s_tmin", "s_tmax")
        ),
    )
}
"""The numbers and switches that can be asked beside the settings, with the answer to what is left out."""

NAMES = {
    "sampler_name": "The sampling method; Euler if left out.",
    "scheduler": "The schedule type; the sampling method's own if left out.",
    "hr_sampler_name": "The hires pass's sampling method; that of the first pass if left out.",
    "hr_scheduler": "The hires pass's schedule type; that of the first pass if left out.",
    "model": "The name of a checkpoint in memory; the one in use if left out.",
}
"""The names that can be asked, with the help for them. As in a payload, a sampling method that the host does not know
is taken for the one that the host takes it for."""

SAME = "Use same "
"""How the page's lists say that the hires pass has the first one's sampling method or schedule type."""


def add_route(demo: Any, app: FastAPI) -> None:
    """Adds the route to the host's application, behind what the host has put before its own API."""
    auth = _host_auth(app)

    def allowed(
        key: str = Header("", alias="X-HiDiffusion-Page"),
        credentials: HTTPBasicCredentials | None = Depends(HTTPBasic(auto_error=False)),
    ) -> None:
        if auth is None or secrets.compare_digest(key.encode(), PAGE_KEY.encode()):
            return
        if credentials is None:
            raise HTTPException(401, "the API's user and password are needed", {"WWW-Authenticate": "Basic"})
        auth(credentials)

    app.get(PATH, dependencies=[Depends(allowed)], openapi_extra=_documentation())(answer)


def _host_auth(app: FastAPI) -> Callable[[HTTPBasicCredentials], Any] | None:
    """What the host checks a user and password with (--api-auth), read off one of its own routes; None if nothing."""
    for route in app.routes:
        if getattr(route, "path", "") == "/sdapi/v1/options":
            return next((needed.dependency for needed in getattr(route, "dependencies", [])), None)
    return None


def _documentation() -> dict[str, Any]:
    """The parameters, for the host's /docs page."""
    known = [*((setting.name, setting.help) for setting in (*JOB.values(), *SETTINGS.values())), *NAMES.items()]
    return {"parameters": [{"name": name, "in": "query", "description": text} for name, text in known]}


def answer(request: Request) -> dict[str, Any]:
    """What HiDiffusion would do in a job, by pass."""
    try:
        return _answer(request.query_params)
    except OptionError as error:
        raise HTTPException(422, str(error)) from error


def _answer(query: Mapping[str, str]) -> dict[str, Any]:
    for name in query:
        if name not in JOB and name not in SETTINGS and name not in NAMES:
            allowed = ", ".join([*JOB, *SETTINGS, *NAMES])
            raise OptionError(f"unknown parameter {quoted(name)}; allowed are {allowed}")
    options = Options.from_mapping({name: SETTINGS[name].parse(query[name]) for name in query if name in SETTINGS})
    asked = {name: JOB[name].checked(JOB[name].parse(query[name])) for name in query if name in JOB}
    names = {name: query[name] for name in NAMES if name in query and not query[name].startswith(SAME)}
    job = SimpleNamespace(**{name: setting.default for name, setting in JOB.items()} | dict.fromkeys(NAMES) | asked)
    vars(job).update(names, is_hr_pass=False, sampler_noise_scheduler_override=None, extra_generation_params={})
    if "s_min_uncond" not in asked:
        job.s_min_uncond = None  # as the host has it
    if not hasattr(processing.StableDiffusionProcessingTxt2Img, "hr_cfg"):
        del job.hr_cfg
    job.sd_model = _loaded_model(job.model)
    if "denoising_strength" in asked and not job.enable_hr:
        return view(job, options, [_img2img_pass(job)])
    job.applied_old_hires_behavior_to, job.truncate_x, job.truncate_y = None, 0, 0
    at_once = None if job.enable_hr else _pass("Picture", job, job.width, job.height, job.steps)
    advice = ""
    try:
        if options.method in MAKE_TWO and (arranged := arrangement(job, options)):
            vars(job).update(arranged.fields)
    except InOnePass as reason:
        advice = str(reason)
    except Refused:  # said in the view
        pass
    if at_once and not job.enable_hr:
        return view(job, options, [at_once], advice=advice)
    return view(job, options, _two_passes(job, options), at_once)


def _img2img_pass(job: Any) -> PlannedPass:
    job.init_images = ()
    rounded = getattr(ui, "sRound", int)  # Forge Neo's, to steps of a size that one can choose
    size = rounded(job.width * job.scale_by), rounded(job.height * job.scale_by)
    return _pass("Picture", job, *size, *sd_samplers_common.setup_img2img_steps(job))


def _two_passes(job: Any, options: Options) -> list[PlannedPass]:
    """The passes of a job with hires fix, in the sizes and steps that the host will give them."""
    processing.StableDiffusionProcessingTxt2Img.calculate_target_resolution(job)
    first = _pass("First pass", job, job.width, job.height, job.steps)
    second = in_hires_pass(job)
    height, width = (side * CELL for side in hires_latent(job))
    with suppress(Refused):  # said in the view
        if first.schedule and first.can_be_cut and is_shortened(job, options):
            first = replace(first, schedule=first.schedule.first(needed_steps(job)(first.schedule)))
    return [first, _pass("Hires pass", second, width, height, *hires_steps(second))]


def _pass(name: str, job: Any, width: int, height: int, steps: int, last_step: int | None = None) -> PlannedPass:
    """One pass of a job.

    Args:
        name: What the pass is called on the page.
        job: The job as it is in that pass.
        width, height: Pixels.
        steps, last_step: What the host makes of steps and strength; no `last_step` for a pass from noise alone.
    """
    strength = None if last_step is None else job.denoising_strength
    told = partial(PlannedPass, name, width, height, hires=job.is_hr_pass, strength=strength)
    try:
        asked = Asking(job)(steps, last_step)
    except NothingSampled as error:
        return told(None, str(error))
    except Exception:  # whatever a host, a model or another extension's sampler may raise: a guess, evenly spaced
        even = [999 * (1 - step / steps) for step in range(steps)] or [0.0]
        return told(Schedule(even if last_step is None else even[-max(1, last_step + 1) :]))
    return told(asked.schedule, sampler=asked.sampler, can_be_cut=asked.can_be_cut)


def _loaded_model(name: str | None) -> Any:
    """The model in use, or another one in memory by its checkpoint's name; None if there is none in memory yet.

    Raises:
        OptionError: if no model of that name is in memory.
    """
    data = sd_models.model_data  # not shared.sd_model, which loads one
    if name is None:
        return data.sd_model if _checkpoint_name(data.sd_model) else None  # the Forge family begins with a placeholder
    loaded = {_checkpoint_name(model): model for model in getattr(data, "loaded_sd_models", [data.sd_model]) if model}
    for known, model in loaded.items():
        if name in (known, known.rpartition(".")[0]):
            return model
    there = ", ".join(loaded) or "none"
    raise OptionError(f"model = {quoted(name)} is not possible; in memory is {there}, and a plan loads no model")


def _checkpoint_name(model: Any) -> str:
    return getattr(getattr(model, "sd_checkpoint_info", None), "name", "")
