"""Where a pass is not guided, and what keeps parts from changing guidance."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from modules import shared

from ..core import Conflict, Need, Schedule
from .model import forge_patcher

CHANGE_GUIDANCE = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function")
"""The Forge family's options of a UNet for functions of others that take part in guidance."""

CFG_SCALE_1 = "nothing is guided at CFG scale 1"
OVER_NOISE = "this sampling method works with noise instead of clean estimates"
LEVEL_IS_SET = "Negative Guidance minimum sigma is set"


@dataclass(frozen=True)
class SamplerKind:
    """What is to be known of a pass's sampler.

    Attributes:
        over_noise: It works with noise instead of clean estimates (DDIM and its kin).
        from_uncond: It goes on from the unconditional result (CFG++), which a change of guidance leaves as it is.
        evaluations: How many the host expects of it.
        a_step: How many of them it makes a step.
    """

    over_noise: bool
    from_uncond: bool
    evaluations: int
    a_step: int

    @classmethod
    def of(cls, sampler: Any) -> SamplerKind:
        """Of a job's sampler."""
        denoiser = getattr(sampler, "model_wrap_cfg", None)
        steps, evaluations = (getattr(denoiser, name, None) or 0 for name in ("steps", "total_steps"))
        return cls(
            hasattr(sampler, "get_timesteps"),
            goes_on_from_uncond(sampler),
            evaluations,
            max(1, evaluations // steps) if steps else 1,
        )


def goes_on_from_uncond(sampler: Any) -> bool:
    """CFG++, by the name that its functions have in every host: they go on from the unconditional result, which damping
    leaves as it is.
    """
    func = getattr(sampler, "func", None)
    name = getattr(inspect.unwrap(func), "__name__", "") if callable(func) else ""
    return "cfgpp" in name.replace("_", "").casefold()


def conflicts(p: Any, sampler: SamplerKind, *, hires: bool) -> list[Conflict]:
    """What keeps parts from changing guidance in a pass.

    Args:
        p: The job.
        sampler: Of the pass.
        hires: Whether it is the second pass of a hires-fix job.
    """
    found: list[Conflict] = []
    scale = getattr(p, "hr_cfg", None) if hires else None  # the Forge family's, which its API sets to 1 by default
    if (getattr(p, "cfg_scale", None) if scale is None else scale) == 1:
        found.append(Conflict(CFG_SCALE_1, frozenset({Need.GUIDANCE, Need.INTERVAL})))
    if sampler.from_uncond:
        reason = "CFG++ goes on from the negative prompt as it was evaluated first"
        found.append(Conflict(reason, frozenset({Need.UNCONDITIONAL})))
    if reason := _guided_otherwise(p):
        found.append(Conflict(reason, frozenset({Need.INTERVAL})))
    if sampler.over_noise:
        found.append(Conflict(OVER_NOISE, frozenset({Need.CLEAN})))
    return found


def _guided_otherwise(p: Any) -> str:
    """Why steps cannot be left without guidance; empty if they can."""
    if _least_noise(p) > 0:
        return LEVEL_IS_SET
    if getattr(p.sd_model, "cond_stage_key", "") == "edit":
        return "InstructPix2Pix is guided by a picture, too"
    options = getattr(forge_patcher(p.sd_model), "model_options", {})
    denoiser = getattr(getattr(p, "sampler", None), "model_wrap_cfg", None)
    if any(options.get(name) for name in CHANGE_GUIDANCE) or "combine_denoised" in getattr(denoiser, "__dict__", {}):
        return "another extension changes guidance"
    return ""


def compares_timesteps(p: Any, sampler: SamplerKind) -> bool:
    """Whether a denoiser compares timesteps with levels that are meant to be sigmas (A1111's for DDIM and its kin)."""
    return sampler.over_noise and forge_patcher(p.sd_model) is None


def _least_noise(p: Any) -> float:
    """The level below which the host leaves out guidance in every other step, or in all."""
    least = getattr(p, "s_min_uncond", None)
    return (getattr(shared.opts, "s_min_uncond", 0) if least is None else least) or 0


def unguided_steps(p: Any, sampler: SamplerKind, schedule: Schedule) -> frozenset[int]:
    """The steps that the host's settings leave without guidance, as its denoiser counts and compares.

    Args:
        p: The job.
        sampler, schedule: Of the pass.
    """
    early = getattr(shared.opts, "skip_early_cond", 0) or 0
    least = _least_noise(p)
    whole = getattr(shared.opts, "s_min_uncond_all", False)
    in_timesteps = compares_timesteps(p, sampler)

    def is_left_out(step: int) -> bool:
        evaluation, timestep = step * sampler.a_step, schedule.timesteps[step]
        if early > 0 and evaluation / (sampler.evaluations or schedule.steps) <= early:
            return True
        noise = timestep if in_timesteps else schedule.levels.sigma(timestep)
        return bool(evaluation % 2 or whole) and noise < least

    return frozenset(filter(is_left_out, range(schedule.steps)))
