"""The schedule of a sampling pass: the one it runs, and beforehand the one it will run."""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import torch

from modules import sd_models, sd_samplers, sd_samplers_common

from ..core import NoiseLevels, Schedule


def pass_schedule(sampler: Any, arguments: dict[str, Any]) -> Schedule:
    """The schedule of a pass that starts.

    Args:
        sampler: The job's sampler; its `model_wrap` has the model's own noise levels (sigmas), and timesteps for any.
        arguments: What the sampling function is called with: falling `sigmas` (k-diffusion, which evaluates all but
            the last), rising `timesteps` (DDIM and its kin, which evaluate all but the first), or only the ends
            `sigma_min` and `sigma_max` (DPM fast and adaptive, which step evenly in the logarithm of sigma).
    """
    if "timesteps" in arguments:
        return Schedule([float(t) for t in arguments["timesteps"].flip(0)[:-1]])
    sigmas = arguments.get("sigmas", arguments.get("sigma_sched"))
    if sigmas is not None:
        sigmas = sigmas[:-1]
    else:
        steps = arguments.get("n") or sampler.model_wrap_cfg.total_steps
        first, last = (math.log(float(arguments[end])) for end in ("sigma_max", "sigma_min"))
        sigmas = torch.linspace(first, last, int(steps)).exp()
    model = sampler.model_wrap
    of_pass, of_training = (model.sigma_to_t(levels.to(model.sigmas)).tolist() for levels in (sigmas, model.sigmas))
    return Schedule(of_pass, NoiseLevels(of_training, model.sigmas.tolist()))


SAMPLER = "Euler"
"""What the host's API takes where a payload names no sampling method."""


def in_hires_pass(job: Any) -> Any:
    """A copy of a job as it is in its hires pass."""
    second = copy.copy(job)
    second.is_hr_pass = True
    second.sampler_name, second.scheduler = job.hr_sampler_name or job.sampler_name, job.hr_scheduler or job.scheduler
    return second


def hires_steps(job: Any) -> tuple[int, int]:
    """Steps of the whole schedule, and the one counted from the end at which the job's hires pass begins."""
    return sd_samplers_common.setup_img2img_steps(job, job.hr_second_pass_steps or job.steps)


def asked_schedule(job: Any, steps: int, last_step: int | None = None) -> Schedule:
    """The schedule of a pass as a job asks for it: a name that the host does not know is what the host makes of it.

    Args:
        job: The job as it is in that pass; stays as it is.
        steps, last_step: See `expected_schedule`.

    Raises:
        Exception: if the host cannot tell it.
    """
    if job.sd_model is None or job.sd_model is not sd_models.model_data.sd_model:
        raise LookupError("samplers are made for the model in use, and load one if there is none")
    asked = job.sampler_name or SAMPLER, job.scheduler
    sampler, scheduler = sd_samplers.get_sampler_and_scheduler(*asked, convert_automatic=False)
    settled = copy.copy(job)
    settled.scheduler = settled.hr_scheduler = scheduler
    settled.extra_generation_params = {}
    return expected_schedule(settled, sampler, steps, last_step)


def expected_schedule(p: Any, sampler_name: str | None, steps: int, last_step: int | None = None) -> Schedule:
    """The schedule that a pass will run, by the host's own functions on a sampler made for the question.

    Args:
        p: The job, or what is like one to the host's functions; gets notes in its `extra_generation_params`.
        sampler_name: As the host's jobs name it.
        steps: Steps of the whole schedule.
        last_step: The step counted from the end at which a pass over a picture begins, as `setup_img2img_steps` gives
            it; None for a pass from noise alone.
    """
    sampler = sd_samplers.create_sampler(sampler_name, p.sd_model)
    if hasattr(sampler, "get_timesteps"):
        return pass_schedule(sampler, {"timesteps": sampler.get_timesteps(p, steps)[:last_step]})
    sigmas = sampler.get_sigmas(p, steps)
    if last_step is None:
        ends, n, evaluated = (sampler.model_wrap.sigmas[-1], sampler.model_wrap.sigmas[0]), steps, steps
    else:
        sigmas = sigmas[steps - last_step - 1 :]
        ends, n, evaluated = (sigmas[0], sigmas[-2]), len(sigmas) - 1, last_step + 1  # as the hosts count both
    sampler.model_wrap_cfg.total_steps = sampler.config.total_steps(evaluated)
    arguments = {"sigmas": sigmas, "sigma_sched": sigmas, "n": n, "sigma_max": ends[0], "sigma_min": ends[1]}
    taken = inspect.signature(sampler.func).parameters
    return pass_schedule(sampler, {name: value for name, value in arguments.items() if name in taken})
