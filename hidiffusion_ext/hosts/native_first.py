"""Makes a large txt2img job one with the host's own hires fix: a native first pass, and a second one over it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from modules import shared

from ..core import Options, Schedule
from ..core.native_first import RESTART_NOISE, first_size, second_steps
from ..core.plan import is_large
from ..core.sizes import CELL, Size
from .passes import native_side
from .schedules import asked_schedule, hires_latent, hires_steps, in_hires_pass

UPSCALER = "hidiffusion_upscaler"
"""The host's option with the name of the upscaler between the passes."""

LANCZOS, NAMELESS = "Lanczos", "None"
"""The same kernel in pixels, by a name that not every host has (Forge Neo), and by one that says nothing."""

STRENGTHS = [hundredths / 100 for hundredths in range(1, 100)]
"""As fine as the page has them."""

USUAL_STRENGTH = 0.35
"""Where the host cannot say which noise a strength stands for."""


def arrange(p: Any, options: Options) -> str:
    """Sets hires fix and the first size of a job from noise alone, unless it has hires fix of its own or is not large.

    To be asked when the job's model is in memory and before the host works out its sizes.

    Returns:
        What was done, in words; empty if nothing.

    Raises:
        Refused: if this model cannot be patched.
    """
    if getattr(p, "enable_hr", True):  # a job of img2img has no such switch
        return ""
    width, height, native = p.width, p.height, native_side(p, options)
    if not is_large((width, height), native):
        return ""
    p.width, p.height = first_size(width, height, native)
    p.enable_hr = True
    p.applied_old_hires_behavior_to = p.width, p.height  # by a setting the host would take another first size
    p.hr_scale, p.hr_resize_x, p.hr_resize_y = 1.0, width, height
    p.hr_upscaler = upscaler()
    p.hr_second_pass_steps, p.denoising_strength = _second_pass(p)
    # The Forge family's, which has other values where there was no hires fix; the second is not in all of it.
    if hasattr(p, "hr_cfg"):
        p.hr_cfg = p.cfg_scale
    if hasattr(p, "hr_additional_modules"):
        p.hr_additional_modules = p.hr_additional_modules or ["Use same choices"]
    return f"{p.width}x{p.height} first, then {width}x{height} at a strength of {p.denoising_strength:g}"


@contextmanager
def wholly_or_not(p: Any) -> Generator[None, None, None]:
    """While open, what fails leaves the job as it was: with half a hires fix the host would make no picture."""
    before = dict(vars(p))
    try:
        yield
    except Exception:
        vars(p).clear()
        vars(p).update(before)
        raise


def prepare_prompts(p: Any) -> None:
    """Lets the host prepare the second pass's prompts, which it did not as long as there was none.

    They are those of the first pass, as other extensions have made them, unless the job has some of its own.
    """
    first = {name: getattr(p, name) for name in ("all_prompts", "all_negative_prompts")}
    same = {name: not getattr(p, own) for name, own in zip(first, ("hr_prompt", "hr_negative_prompt"))}
    p.setup_prompts()
    for name, prompts in first.items():
        setattr(p, name, prompts)
        if same[name]:
            setattr(p, name.replace("all_", "all_hr_"), list(prompts))


def ended_early(p: Any, made: Size) -> bool:
    """Whether pictures of that many latent cells are the first pass's, although the job has a second one."""
    return getattr(p, "enable_hr", False) and made == (p.height // CELL, p.width // CELL) != hires_latent(p)


def upscaler() -> str:
    """The upscaler chosen on the Settings page, if the host still has it."""
    chosen = getattr(shared.opts, UPSCALER, "")
    return chosen if chosen in upscalers() else usual_upscaler()


def usual_upscaler() -> str:
    """Lanczos, as this host calls it."""
    return LANCZOS if LANCZOS in upscalers() else NAMELESS


def upscalers() -> list[str]:
    """The host's upscalers that enlarge pixels, each once."""
    names = [known.name for known in shared.sd_upscalers]
    return [name for name in names if name != NAMELESS or LANCZOS not in names]


def _second_pass(p: Any) -> tuple[int, float]:
    """Steps and strength, in hundredths, with which the second pass begins nearest to the noise it is meant to.

    A schedule has that noise between two of its steps, so one step more may come nearer. Of the steps that A1111's DDIM
    and its kin are asked for over a picture they run two fewer.
    """
    usual = second_steps(p.steps)

    @cache
    def begun(steps: int, strength: float) -> Schedule:
        second = in_hires_pass(p)
        second.hr_second_pass_steps, second.denoising_strength = steps, strength
        return asked_schedule(second, *hires_steps(second))

    def off(steps: int, strength: float) -> float:
        """How much more noise there is than there is meant to be."""
        schedule = begun(steps, strength)
        return schedule.levels.noise(schedule.timesteps[0]) - RESTART_NOISE

    found: list[tuple[float, int, float]] = []
    try:
        fewest = usual if begun(usual + 2, USUAL_STRENGTH).steps > usual else usual + 2
        for steps in (fewest, fewest + 1):
            above = bisect_left(STRENGTHS, 0, lo=1, hi=len(STRENGTHS) - 1, key=partial(off, steps))
            found += [(abs(off(steps, strength)), steps, strength) for strength in STRENGTHS[above - 1 : above + 1]]
    except Exception:  # whatever a host, a model or another extension's sampler may raise
        return usual, USUAL_STRENGTH
    _, steps, strength = min(found)
    return steps, strength
