"""`GET /hidiffusion/v1/plan`: what would be active in a job of the given size with the model in memory.

    /hidiffusion/v1/plan?width=512&height=768&enable_hr=true&hr_scale=2&steps=20&method=ScaleCrafter

The parameters are named as in the payload of /sdapi/v1/txt2img and img2img, the settings as in `Options`. Sizes and
steps are worked out by the host's own functions. Nothing is loaded, nothing is changed, and no lock is waited for, so
it answers while a picture is being made.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from modules import processing, sd_models, sd_samplers_common

from ..core import OptionError, Options, Schedule
from ..core.options import SETTINGS, Setting, quoted
from .plan_view import Pass, view

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
    )
}
"""What can be asked beside the settings, with the answer to what is left out."""


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
    known = [(setting.name, setting.help) for setting in (*JOB.values(), *SETTINGS.values())]
    known.append(("model", "The name of a checkpoint in memory; the one in use if left out."))
    return {"parameters": [{"name": name, "in": "query", "description": text} for name, text in known]}


def answer(request: Request) -> dict[str, Any]:
    """What HiDiffusion would do in a job, by pass."""
    try:
        return _answer(request.query_params)
    except OptionError as error:
        raise HTTPException(422, str(error)) from error


def _answer(query: Mapping[str, str]) -> dict[str, Any]:
    for name in query:
        if name not in JOB and name not in SETTINGS and name != "model":
            allowed = ", ".join([*JOB, *SETTINGS, "model"])
            raise OptionError(f"unknown parameter {quoted(name)}; allowed are {allowed}")
    options = Options.from_mapping({name: SETTINGS[name].parse(query[name]) for name in query if name in SETTINGS})
    asked = {name: JOB[name].checked(JOB[name].parse(query[name])) for name in query if name in JOB}
    job = SimpleNamespace(**{name: setting.default for name, setting in JOB.items()} | asked)
    job.sd_model = _loaded_model(query.get("model"))
    return view(job, options, _passes(job, img2img="denoising_strength" in asked and not job.enable_hr))


def _passes(job: Any, *, img2img: bool) -> list[Pass]:
    """The passes of a job, in the sizes and steps that the host will give them."""
    if img2img:
        size = int(job.width * job.scale_by), int(job.height * job.scale_by)
        return [Pass("Picture", *size, _second(*sd_samplers_common.setup_img2img_steps(job)))]
    if not job.enable_hr:
        return [Pass("Picture", job.width, job.height, _evenly_spaced(job.steps))]
    job.extra_generation_params, job.applied_old_hires_behavior_to = {}, None
    processing.StableDiffusionProcessingTxt2Img.calculate_target_resolution(job)
    hires_steps = job.hr_second_pass_steps or job.steps
    second = _second(*sd_samplers_common.setup_img2img_steps(job, hires_steps))
    return [
        Pass("First pass", job.width, job.height, _evenly_spaced(job.steps)),
        Pass("Hires pass", job.hr_upscale_to_x, job.hr_upscale_to_y, second, hires=True),
    ]


def _second(steps: int, last_step: int) -> Schedule:
    """The schedule of a pass over a picture, from what the host makes of its strength: the end of a whole one."""
    return Schedule(_evenly_spaced(max(1, steps)).timesteps[-max(1, last_step + 1) :])


def _evenly_spaced(steps: int) -> Schedule:
    """A whole pass; as the sampler and the scheduler are not known here, evenly spaced."""
    return Schedule([999 * (1 - step / steps) for step in range(steps)])


def _loaded_model(name: str | None) -> Any:
    """The model in use, or another one in memory by its checkpoint's name; None if there is none in memory yet.

    Raises:
        OptionError: if no model of that name is in memory.
    """
    data = sd_models.model_data  # not shared.sd_model, which loads one
    if name is None:
        return data.sd_model
    loaded = {_checkpoint_name(model): model for model in getattr(data, "loaded_sd_models", [data.sd_model]) if model}
    for known, model in loaded.items():
        if name in (known, known.rpartition(".")[0]):
            return model
    there = ", ".join(loaded) or "none"
    raise OptionError(f"model = {quoted(name)} is not possible; in memory is {there}, and a plan loads no model")


def _checkpoint_name(model: Any) -> str:
    return getattr(getattr(model, "sd_checkpoint_info", None), "name", "")
