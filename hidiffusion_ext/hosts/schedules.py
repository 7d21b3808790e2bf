"""The schedule of a sampling pass: the one it runs, and beforehand the one it will run."""

from __future__ import annotations

import copy
import inspect
import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import torch

from modules import sd_models, sd_samplers, sd_samplers_common, shared

from ..core import NoiseLevels, Schedule
from ..core.schedule import DISCRETE
from ..core.sizes import CELL, Size
from .model import forge_patcher


def pass_schedule(sampler: Any, arguments: dict[str, Any]) -> Schedule:
    """The schedule of a pass that starts.

    Args:
        sampler: The job's sampler; its `model_wrap` has the model's own noise levels (sigmas), and timesteps for any.
        arguments: What the sampling function is called with: falling `sigmas` (k-diffusion, which evaluates all but
            the last, with noise added before by `s_churn`), rising `timesteps` (DDIM and its kin, which evaluate all
            but the first; UniPC, which makes as many of its own), or only the ends `sigma_min` and `sigma_max` (DPM
            fast and adaptive, which step evenly in the logarithm of sigma).
    """
    if "timesteps" in arguments:
        timesteps = arguments["timesteps"].flip(0).tolist()
        if "is_img2img" not in inspect.signature(sampler.func).parameters:
            return Schedule(timesteps[:-1])
        begin = timesteps[0] if arguments.get("is_img2img") else DISCRETE.most
        return Schedule(unipc_timesteps(begin, len(timesteps), getattr(shared.opts, "uni_pc_skip_type", "")))
    sigmas = arguments.get("sigmas", arguments.get("sigma_sched"))
    if sigmas is not None:
        sigmas = _churned(sigmas[:-1], arguments)
    else:
        steps = arguments.get("n") or sampler.model_wrap_cfg.total_steps
        first, last = (math.log(float(arguments[end])) for end in ("sigma_max", "sigma_min"))
        sigmas = torch.linspace(first, last, int(steps)).exp()
    of_training, timesteps_of = _noise(sampler.model_wrap)
    of_pass, at_training = (timesteps_of(levels.to(of_training)).tolist() for levels in (sigmas, of_training))
    return Schedule(of_pass, NoiseLevels(at_training, of_training.tolist()))


def _noise(model: Any) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """A wrapped model's noise levels, rising, and what gives the UNet's timesteps for any.

    In reForge and Classic other extensions can put another `model_sampling` (CosXL, zero SNR) beside the UNet; the
    UNet's timesteps come from that one then, and not from the wrapper.
    """
    patcher = forge_patcher(getattr(model, "inner_model", None))
    sampling = getattr(getattr(patcher, "model", None), "model_sampling", None)
    return (model.sigmas, model.sigma_to_t) if sampling is None else (sampling.sigmas, sampling.timestep)


def unipc_timesteps(begin: float, steps: int, spacing: str) -> list[float]:
    """The timesteps at which UniPC evaluates, falling.

    Args:
        begin: Where it begins; it ends at 0, which it does not evaluate.
        steps: How many there are.
        spacing: The host's setting for it: even in time (`time_uniform`), in its root (`time_quadratic`), or in the
            logarithm of signal over noise (`logSNR`). Time is a timestep and one more.
    """
    if spacing == "logSNR":
        noise = [DISCRETE.noise(timestep) for timestep in range(1000)]
        ratios = [math.log((1 - share) / share) for share in reversed(noise)]  # rising, as timesteps fall
        first, last = ratios[999 - round(begin)], ratios[-1]
        wanted = (first + (last - first) * step / steps for step in range(steps))
        return [999 - _position(ratios, ratio) for ratio in wanted]
    root = 2 if spacing == "time_quadratic" else 1
    first = (begin + 1) ** (1 / root)
    return [(first + (1 - first) * step / steps) ** root - 1 for step in range(steps)]


def _position(rising: list[float], value: float) -> float:
    """Where a value stands among rising ones, on straight lines between them."""
    above = min(max(bisect_left(rising, value), 1), len(rising) - 1)
    return above - 1 + (value - rising[above - 1]) / (rising[above] - rising[above - 1])


def _churned(sigmas: torch.Tensor, arguments: dict[str, Any]) -> torch.Tensor:
    """The noise at the evaluations of samplers that add some before (Karras et al., arXiv 2206.00364, algorithm 2)."""
    share = min(arguments.get("s_churn", 0.0) / len(sigmas), 2**0.5 - 1)
    within = (sigmas >= arguments.get("s_tmin", 0.0)) & (sigmas <= arguments.get("s_tmax", math.inf))
    return sigmas * (1 + share * within)


SAMPLER = "Euler"
"""What the host's API takes where a payload names no sampling method."""


def in_hires_pass(job: Any) -> Any:
    """A copy of a job as it is in its hires pass."""
    second = copy.copy(job)
    second.is_hr_pass = True
    second.sampler_name, second.scheduler = job.hr_sampler_name or job.sampler_name, job.hr_scheduler or job.scheduler
    return second


def hires_latent(job: Any) -> Size:
    """The latent's (height, width) in the job's hires pass, once its target has been worked out: the host cuts off what
    is too much for the aspect that was asked for."""
    return job.hr_upscale_to_y // CELL - job.truncate_y, job.hr_upscale_to_x // CELL - job.truncate_x


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
        timesteps = sampler.get_timesteps(p, steps)[:last_step]
        return pass_schedule(sampler, {"timesteps": timesteps, "is_img2img": last_step is not None})
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
