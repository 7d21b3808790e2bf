"""The schedule that a sampling pass runs, and what a job's hires pass will be like."""

from __future__ import annotations

import copy
import inspect
import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import torch

from modules import sd_samplers_common, shared

from ..core import NoiseLevels, Refused, Schedule
from ..core.schedule import DISCRETE
from ..core.sizes import CELL, Size
from .model import forge_patcher

NOISE = ("sigmas", "sigma_sched", "timesteps")
"""The arguments of sampling functions that hold the noise of each step."""


class NothingSampled(Refused):
    """The sampler makes no step in a pass; the message is one sentence for the user."""

    def __init__(self) -> None:
        super().__init__("nothing is sampled: this sampling method makes no step of so few")


def pass_schedule(sampler: Any, arguments: dict[str, Any], levels: NoiseLevels | None = None) -> Schedule:
    """The schedule of a pass that starts.

    Args:
        sampler: The job's sampler; its `model_wrap` has the model's own noise levels (sigmas), and timesteps for any.
        arguments: What the sampling function is called with: falling `sigmas` (k-diffusion, which evaluates all but
            the last, with noise added before by `s_churn`), rising `timesteps` (DDIM and its kin, which evaluate all
            but the first; UniPC, which makes as many of its own), or only the ends `sigma_min` and `sigma_max` (DPM
            fast and adaptive, which step evenly in the logarithm of sigma).
        levels: The `noise_levels`, if they are known.

    Raises:
        NothingSampled: if there is no step.
    """
    if "timesteps" in arguments:
        is_unipc = _is_unipc(sampler)
        timesteps = arguments["timesteps"].flip(0).tolist()[: None if is_unipc else -1]
        if not timesteps:
            raise NothingSampled
        if not is_unipc:
            return Schedule(timesteps)
        begin = timesteps[0] if arguments.get("is_img2img") else DISCRETE.most
        return Schedule(unipc_timesteps(begin, len(timesteps), getattr(shared.opts, "uni_pc_skip_type", "")))
    sigmas = arguments.get("sigmas", arguments.get("sigma_sched"))
    if sigmas is not None:
        sigmas = sigmas[:-1]
        if not len(sigmas):
            raise NothingSampled
        sigmas = _churned(sigmas, arguments)
    else:
        steps = arguments.get("n") or sampler.model_wrap_cfg.total_steps
        first, last = (math.log(float(arguments[end])) for end in ("sigma_max", "sigma_min"))
        sigmas = torch.linspace(first, last, int(steps)).exp()
    of_training, timesteps_of = _noise(sampler.model_wrap)
    return Schedule(timesteps_of(sigmas.to(of_training)).tolist(), levels or noise_levels(sampler))


def can_be_cut(sampler: Any, arguments: dict[str, Any]) -> bool:
    """Whether a pass with these arguments of `pass_schedule` can be cut short: not UniPC's, nor of samplers that choose
    their own steps.
    """
    return any(name in arguments for name in NOISE) and not ("timesteps" in arguments and _is_unipc(sampler))


def cut_short(arguments: dict[str, Any], steps: int) -> dict[str, Any]:
    """The arguments for the first steps of a pass, the last of them to where the pass ends."""

    def cut(name: str, noise: torch.Tensor) -> torch.Tensor:
        return torch.cat([noise[:1], noise[-steps:]] if name == "timesteps" else [noise[:steps], noise[-1:]])

    return {name: cut(name, value) if name in NOISE else value for name, value in arguments.items()}


def _is_unipc(sampler: Any) -> bool:
    return "is_img2img" in inspect.signature(sampler.func).parameters


def noise_levels(sampler: Any) -> NoiseLevels:
    """The noise schedule of a sampler's model, in the UNet's units."""
    of_training, timesteps_of = _noise(sampler.model_wrap)
    return NoiseLevels(timesteps_of(of_training).tolist(), of_training.tolist())


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
