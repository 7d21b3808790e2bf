"""What a job would get, told before it is made: the plan in words and numbers, for the panel and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import Method, Options, Plan, Refused, Schedule
from ..core.cost import Cost, count, direct, speed_up
from ..core.methods import without_effect
from ..core.native_first import is_far
from ..core.sizes import CELL, Size
from ..core.words import describe
from ..hosts.guiding import SamplerKind
from ..hosts.model import Model
from ..hosts.passes import plan_pass

OWN_SECOND_PASS = "Its second pass has a strength and steps of its own; to set them yourself, use hires fix."

FAR = "So large a picture is drawn better with the method Native first."
"""What is said of passes from noise alone that make one."""

AUTO_TWO = "Auto takes Native first: one pass draws so large a picture badly."
AUTO_ONE = "Auto takes HiDiffusion: one pass is enough."


@dataclass(frozen=True)
class PlannedPass:
    """One sampling pass that a job will have.

    Attributes:
        name: What it is called on the page.
        width, height: Its size in pixels.
        schedule: The noise levels it will run; None if nothing is sampled.
        nothing: Why nothing is.
        hires: The second pass of a hires-fix job.
        strength: The denoising strength of a pass over a picture; None for one from noise alone.
        sampler: What is to be known of its sampler; None where the host could not say the noise levels, and they are a
            guess.
        can_be_cut: Whether the host can cut it short.
    """

    name: str
    width: int
    height: int
    schedule: Schedule | None
    nothing: str = ""
    hires: bool = False
    strength: float | None = None
    sampler: SamplerKind | None = None
    can_be_cut: bool = False


def view(
    job: Any, options: Options, passes: list[PlannedPass], at_once: PlannedPass | None = None, *, advice: str = ""
) -> dict[str, Any]:
    """The plan of a job as plain JSON values; nothing is loaded and nothing is changed.

    Args:
        job: What the host's jobs are to `find_model`: its `sd_model` is the model, None if there is none in memory.
        options: What would be asked for; `enabled` is not looked at.
        passes: The job's passes, first one first.
        at_once: The only pass it would have without HiDiffusion, if that makes others of it.
        advice: A sentence on the job, if there is one.

    Returns:
        `model`: family and checkpoint in words; `refused`: why nothing can be done, a sentence or empty;
        `mark`: all of it in two or three words; `advice`: a sentence on what would give better pictures, or empty;
        `speed_up`: how many times fewer multiplications the whole job takes; `passes`: one entry per pass, empty if
        refused, with its `name`, `width`, `height`, `steps`, `strength` (null for a pass from noise alone), `native`
        (the side the model was made for), `area` (how many times the native one), `preset`, `active`, `text` (what is
        active until which step, or why nothing is), `speed` (what to expect, in words), `speed_up`, and `work` (each
        step's multiplications as a share of what it takes without HiDiffusion); `notes`: what is to be said beside a
        setting's control, by name; `without_effect`: the names of settings that change nothing as things are.
    """
    if job.sd_model is None:
        return _refused("no model is in memory yet; the plan is shown once one is loaded")
    try:
        planned = [
            plan_pass(job, options, _latent(one), hires=one.hires, schedule=one.schedule, sampler=one.sampler)
            for one in passes
        ]
    except Refused as error:
        return _refused(str(error))
    model, plan = planned[0]
    family = plan.unet.family.value
    plans = [plan for _, plan in planned]
    costs = [count(plan, one.schedule) if one.schedule else Cost(0.0, ()) for one, plan in zip(passes, plans)]
    entries = [_entry(*each) for each in zip(passes, plans, costs)]
    without = direct(plans[-1], at_once.schedule) if at_once and at_once.schedule else None
    faster = speed_up(*costs, direct=without)
    idle = _idle(options, plans)
    notes = {**_preset_values(plans), **{name: f"Not used: {idle[name]}." for name in idle}}
    auto, far = options.method is Method.AUTO, any(map(_is_far, plans))
    if auto and (at_once or (len(plans) == 1 and plan.active and not far)):
        notes["method"] = f"{AUTO_TWO} {OWN_SECOND_PASS}" if at_once else AUTO_ONE
    elif at_once:
        notes["method"] = OWN_SECOND_PASS
    return {
        "model": f"{family}{_checkpoint(model)}",
        "refused": "",
        "mark": _speed(faster) if at_once or any(entry["active"] for entry in entries) else "nothing to do",
        "speed_up": round(faster, 2),
        "advice": advice or FAR * (far and not auto),
        "passes": entries,
        "notes": notes,
        "without_effect": list(idle),
    }


def _entry(one: PlannedPass, plan: Plan, cost: Cost) -> dict[str, Any]:
    """What `view` tells of a pass."""
    active = bool(one.schedule and plan.due(one.schedule))
    return {
        "name": one.name,
        "width": one.width,
        "height": one.height,
        "steps": len(cost.shares),
        "strength": one.strength,
        "native": plan.native,
        "area": round(one.width * one.height / plan.native**2, 2),
        "preset": plan.preset.value if active else "",
        "active": active,
        "text": one.nothing or describe(plan, one.schedule, about=one.sampler is None),
        "speed": _speed(speed_up(cost)) if active else "",
        "speed_up": round(speed_up(cost), 2),
        "work": [round(share, 3) for share in cost.shares],
    }


def _idle(options: Options, plans: list[Plan]) -> dict[str, str]:
    """The settings that change nothing in any of the passes, and why not in the first one."""
    nothing = [without_effect(options, plan) for plan in plans]
    return {name: reason for name, reason in nothing[0].items() if all(name in each for each in nothing)}


def _is_far(plan: Plan) -> bool:
    height, width = (side * CELL for side in plan.latent)
    return plan.active and not plan.over_picture and is_far(width, height, plan.native)


def _preset_values(plans: list[Plan]) -> dict[str, str]:
    """What the presets of a job's passes have for T1 and T2, as notes beside them."""
    notes: dict[str, str] = {}
    for plan in plans if plans[0].latent != plans[-1].latent else plans[:1]:
        for name, value in (("t1", plan.preset_t1), ("t2", plan.preset_t2)) if plan.active else ():
            size = f"{plan.latent[1] * CELL}x{plan.latent[0] * CELL}"
            said = f"The preset has {f'{value:.2g}' if value else 'none'} at {size}."
            notes[name] = f"{notes[name]} {said}" if name in notes else said
    return notes


def _latent(one: PlannedPass) -> Size:
    return max(1, one.height // CELL), max(1, one.width // CELL)


def _refused(reason: str) -> dict[str, Any]:
    return {
        "model": "",
        "refused": reason,
        "mark": "cannot be used",
        "speed_up": 1.0,
        "advice": "",
        "passes": [],
        "notes": {},
        "without_effect": [],
    }


def _checkpoint(model: Model) -> str:
    return f" ({model.name})" if model.name else ""


def _speed(factor: float) -> str:
    if factor >= 1.05:
        return f"up to {factor:.1f} times as fast"
    if factor <= 0.95:
        return f"takes about {1 / factor:.1f} times as long"
    return "takes as long as without"
