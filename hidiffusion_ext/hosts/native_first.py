"""Makes a large txt2img job one with the host's own hires fix: a native first pass, and a second one over it."""

from __future__ import annotations

import copy
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from modules import shared, ui

from ..core import Options, Schedule
from ..core.cost import count, direct
from ..core.native_first import RESTART_NOISE, first_size, makes_two, steps_in_time
from ..core.schedule import DISCRETE
from ..core.sizes import CELL, Size
from .asking import Asking
from .passes import native_side, plan_pass
from .schedules import hires_latent, hires_steps, in_hires_pass

UPSCALER = "hidiffusion_upscaler"
"""The host's option with the name of the upscaler between the passes."""

LANCZOS, NAMELESS = "Lanczos", "None"
"""The same kernel in pixels, by a name that not every host has (Forge Neo), and by one that says nothing."""

STRENGTHS = [hundredths / 100 for hundredths in range(1, 100)]
"""As fine as the page has them."""

USUAL_STRENGTH = 0.35
"""Where the host cannot say which noise a strength stands for."""

WORKED_OUT = (
    *("hr_checkpoint_info", "hr_upscale_to_x", "hr_upscale_to_y", "truncate_x", "truncate_y", "latent_scale_mode"),
    *("all_hr_prompts", "all_hr_negative_prompts", "hr_prompts", "hr_negative_prompts", "hr_extra_network_data"),
    *("hr_c", "hr_uc", "is_hr_pass"),
)
"""What a host keeps on a job with hires fix beside what it was asked for."""

NOTE = "hidiffusion_native_first"
"""The attribute of an arranged job that says so; a copy of the job has it, too."""

NO_TIME = "With so few steps a native picture first would take longer, so the picture is made in one pass."


class InOnePass(Exception):
    """A large job stays one of a single pass; the message says why."""


@dataclass(frozen=True)
class Arrangement:
    """Hires fix for a job that had none.

    Attributes:
        fields: What the job is asked for instead.
        text: The passes in words.
        guessed: Why the strength is a guess; empty if it is none.
    """

    fields: dict[str, Any]
    text: str
    guessed: str


@dataclass(frozen=True)
class _Note:
    """What an arranged job is to be given back.

    Attributes:
        text: The arrangement's.
        given: The job's attributes as they were arranged.
        before: Those that the job had before, of these and of `WORKED_OUT`.
    """

    text: str
    given: dict[str, Any]
    before: dict[str, Any]


def arrangement(p: Any, options: Options) -> Arrangement | None:
    """Hires fix and a first size for a job from noise alone; none if it has hires fix of its own, or if the method
    makes its picture in one pass.

    To be asked when the job's model is in memory and before the host works out its sizes. Without hires fix the job's
    other fields of it count for nothing, and they go on counting for nothing: the second pass is made as the first one.

    Args:
        p: The job; stays as it is.
        options: What the user asked for.

    Raises:
        Refused: if this model cannot be patched, or not as asked.
        InOnePass: if it would take longer than the picture in one pass.
    """
    if getattr(p, "enable_hr", True):  # a job of img2img has no such switch
        return None
    width, height = (side // CELL * CELL for side in (p.width, p.height))  # as the host makes them
    native = native_side(p, options)
    if not makes_two(options.method, width, height, native):
        return None
    target = _target(width), _target(height)
    first = first_size(*target, native)
    numbers = _numbers_of_steps(p, options, (first[1] // CELL, first[0] // CELL), (height // CELL, width // CELL))
    if not numbers:
        raise InOnePass(NO_TIME)
    fields = {
        "enable_hr": True,
        "width": first[0],
        "height": first[1],
        "applied_old_hires_behavior_to": first,  # by a setting the host would take another first size
        "hr_scale": 1.0,
        "hr_resize_x": target[0],
        "hr_resize_y": target[1],
        "truncate_x": (target[0] - width) // CELL,
        "truncate_y": (target[1] - height) // CELL,
        "hr_upscaler": upscaler(),
        "hr_sampler_name": None,
        "hr_scheduler": p.scheduler,
        "hr_checkpoint_name": None,
    }
    if hasattr(p, "hr_cfg"):  # the Forge family
        fields["hr_cfg"] = p.cfg_scale
    if hasattr(p, "hr_additional_modules"):  # not all of it
        fields["hr_additional_modules"] = ["Use same choices"]
    job = copy.copy(p)
    vars(job).update(fields)
    steps, strength, guessed = _second_pass(job, numbers)
    fields |= {"hr_second_pass_steps": steps, "denoising_strength": strength}
    text = f"{first[0]}x{first[1]}, then {width}x{height} at a strength of {strength:g}"
    return Arrangement(fields, text + " (a guess)" * bool(guessed), guessed)


def _target(side: int) -> int:
    """The side in pixels that a second pass is asked for, of which the host cuts off what is too much: Forge Neo makes
    hires fix's sides multiples of a size that one can choose.
    """
    made, asked = getattr(ui, "sRound", int), side
    while made(asked) < side:
        asked += CELL
    return made(asked)


def arrange(p: Any, arranged: Arrangement) -> None:
    """Gives a job its hires fix, until `take_back`.

    To be done between the host's preparing of prompts, which the second pass shares, and of sizes. What the host notes
    for texts from now on is the job's own, and no longer shared with copies of it.
    """
    given = {
        **arranged.fields,
        "hr_prompt": p.prompt,
        "hr_negative_prompt": p.negative_prompt,
        "all_hr_prompts": list(p.all_prompts),
        "all_hr_negative_prompts": list(p.all_negative_prompts),
        "extra_generation_params": dict(p.extra_generation_params),
    }
    before = {name: vars(p)[name] for name in (*given, *WORKED_OUT) if name in vars(p)}
    vars(p).update({**given, NOTE: _Note(arranged.text, given, before)})


def take_back(p: Any) -> None:
    """Makes an arranged job, or a copy of one, what it was before, when it is over or is to be made again.

    What somebody has set to something else since, stays.
    """
    note: _Note | None = vars(p).pop(NOTE, None)
    if note is None:
        return
    texts = p.extra_generation_params
    for name in {*note.given, *WORKED_OUT}:
        if name not in WORKED_OUT and getattr(p, name, None) != note.given[name]:
            continue
        if name in note.before:
            setattr(p, name, note.before[name])
        else:
            vars(p).pop(name, None)
    if (before := p.extra_generation_params) is not texts:
        told = {key: value for key, value in before.items() if _tells_hires_fix(key)}
        told |= {key: value for key, value in texts.items() if not _tells_hires_fix(key)}
        before.clear()
        before.update(told)


def arranged_text(p: Any) -> str:
    """An arranged job's passes in words; empty for any other."""
    note: _Note | None = getattr(p, NOTE, None)
    return note.text if note else ""


def _tells_hires_fix(key: str) -> bool:
    """Whether a host's entry in a text is there because of hires fix, in a job that is made from noise alone."""
    return key.startswith("Hires ") or key in ("Denoising strength", "VAE Encoder")


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


def _numbers_of_steps(p: Any, options: Options, first: Size, second: Size) -> range:
    """How many steps a second pass may have, by the multiplications in passes of these latents."""
    late = Schedule([DISCRETE.at_sigma((RESTART_NOISE / (1 - RESTART_NOISE)) ** 0.5)])
    _, small = plan_pass(p, options, first, hires=False)
    _, large = plan_pass(p, options, second, hires=True)
    shares = direct(small, late) / direct(large, late), count(large, late).shares[0]
    return steps_in_time(p.steps, *shares, 1 if p.cfg_scale == 1 else 2)


def _second_pass(p: Any, numbers: range) -> tuple[int, float, str]:
    """Steps and strength, in hundredths, with which the second pass begins nearest to the noise it is meant to; and why
    the strength is a guess, or nothing.

    A schedule has that noise between two of its steps, so one step more may come nearer. Of the steps that A1111's DDIM
    and its kin are asked for over a picture they run two fewer.

    Args:
        p: The job.
        numbers: How many steps there may be, the usual number first.
    """
    usual = numbers[0]
    second = in_hires_pass(p)
    asking = Asking(second)

    @cache
    def begun(steps: int, strength: float) -> Schedule:
        second.hr_second_pass_steps, second.denoising_strength = steps, strength
        return asking(*hires_steps(second)).schedule

    def off(steps: int, strength: float) -> float:
        """How much more noise there is than there is meant to be."""
        schedule = begun(steps, strength)
        return schedule.levels.noise(schedule.timesteps[0]) - RESTART_NOISE

    found: list[tuple[float, int, float]] = []
    try:
        more = 0 if begun(usual + 2, USUAL_STRENGTH).steps > usual else 2
        for steps in (number + more for number in numbers):
            above = bisect_left(STRENGTHS, 0, lo=1, hi=len(STRENGTHS) - 1, key=partial(off, steps))
            found += [(abs(off(steps, strength)), steps, strength) for strength in STRENGTHS[above - 1 : above + 1]]
    except Exception as error:  # whatever a host, a model or another extension's sampler may raise
        return usual, USUAL_STRENGTH, f"the host cannot say how noise falls with this sampling method ({error!r})"
    _, steps, strength = min(found)
    return steps, strength, ""
