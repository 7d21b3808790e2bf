"""What a pass gets, and got, in words: for the page, the log and the infotext."""

from __future__ import annotations

import itertools
import math

from .done import Done, Work
from .plan import Plan, Technique
from .schedule import Schedule, Span
from .sizes import CELL

SETTLED = "the layout is settled where this pass begins"
"""Why a technique that works on a picture's layout has nothing to do in a pass that begins with little noise."""

WHOLE = Span(0, 1)
"""A whole pass."""

LAYERS_NOT_CALLED = "the model's own layers were not called one by one"
LESS_NOISE = "the model was never called with the noise that it is for"
NOT_GUIDED = "nothing is guided while it would work"
ON_GUIDANCE = Work.DAMPED, Work.SPLIT_GUIDANCE, Work.ANCHOR
"""What is done in guided steps alone."""

NOT_MET = {
    Technique.RAU_NET: LAYERS_NOT_CALLED,
    Technique.REDILATION: LAYERS_NOT_CALLED,
    Technique.RELAY: LAYERS_NOT_CALLED,
    Technique.DAMPED_GUIDANCE: NOT_GUIDED,
    Technique.MSW_MSA: "self-attention was never given the picture as it is",
    Technique.SPLIT_GUIDANCE: NOT_GUIDED,
    Technique.ANCHOR: NOT_GUIDED,
}
"""Why a technique that was planned was never done, as far as its own hooks can tell."""


def describe(plan: Plan, schedule: Schedule | None = None, *, about: bool = False, done: Done | None = None) -> str:
    """What is active, in words; after the pass, what was.

    Args:
        plan: Of the pass.
        schedule: Its noise levels; without it, ends are told as shares of the noise instead of in steps.
        about: The schedule is a guess, and the words say so.
        done: What was done in the pass, which has the schedule; nothing else is claimed then.
    """
    if not plan.active:
        return plan.reason
    of = f" of {schedule.steps}" if schedule else ""
    parts: list[str] = []
    left_out = list(plan.left_out)

    def ends(*works: tuple[Work, Span]) -> list[str]:
        """When these are over, the earliest first; nothing for what is not done."""
        if schedule is None:
            shares = sorted({span.end for _, span in works if span.end > span.start})
            return [f"{end:.0%} of the noise" for end in shares]
        steps = sorted({_end(plan, work, span, schedule, done) for work, span in works} - {0})
        return ["about " * about + f"step {step}" for step in steps]

    def not_done(technique: Technique, *spans: Span) -> None:
        if done and technique in done.left_out:
            return
        if schedule and not any(schedule.steps_inside(span) for span in spans):
            left_out.append(f"{technique.value} because {SETTLED}")
        elif schedule and done is None:  # what works on guidance alone comes here
            left_out.append(f"{technique.value} because {NOT_GUIDED}")
        elif schedule and done and not done.cut_short:
            came = any(schedule.inside(span, max(done.called, default=-math.inf)) for span in spans)
            left_out.append(f"{technique.value} because {NOT_MET[technique] if came else LESS_NOISE}")

    def whole(technique: Technique, work: Work, words: str) -> None:
        """A technique that works for the whole pass, one on guidance in every step that is guided."""
        if schedule is None:
            parts.append(words)
        elif done is None and (last := _end(plan, work, WHOLE, schedule, None)):
            parts.append(words + f" until step {last}{of}" * (last < schedule.steps))
        elif done and work in done.least:
            last = f" until step {done.step(schedule, done.least[work])}{of}"
            parts.append(words + last * done.ended_before_the_pass(work))
        else:
            not_done(technique, WHOLE)

    for stage in plan.stages:
        if end := ends((Work.RELAY, stage.span)):
            width, height = stage.latent[1] * CELL, stage.latent[0] * CELL
            parts.append(f"{Technique.RELAY.value} at " * (not parts) + f"{width}x{height} until {end[0]}")
    if parts:
        parts[-1] += of
    elif plan.stages:
        not_done(Technique.RELAY, *(stage.span for stage in plan.stages))
    pairs = (Work.STRIDED, plan.strided.span), (Work.POOLED, plan.pooled.span)
    if end := ends(*pairs):
        stronger = f" (stronger until {end[0]})" if len(end) > 1 else ""
        parts.append(f"{Technique.RAU_NET.value} until {end[-1]}{of}{stronger}")
    elif plan.strided.span.end or plan.pooled.span.end:
        not_done(Technique.RAU_NET, plan.strided.span, plan.pooled.span)
    dilated = [site.span for site in plan.redilations]
    if end := ends(*((Work.REDILATED, span) for span in dilated)):
        dispersed = ends(*((Work.DISPERSED, site.span) for site in plan.redilations if site.dispersed))
        spread = f" with {Technique.DISPERSION.value}" if dispersed else ""
        if dispersed and dispersed[-1] != end[-1]:
            spread += f" until {dispersed[-1]} and without it"
        parts.append(f"{Technique.REDILATION.value}{spread} until {end[-1]}{of}")
    elif dilated:
        not_done(Technique.REDILATION, *dilated)
    if end := ends((Work.DAMPED, plan.damped)):
        parts.append(f"{Technique.DAMPED_GUIDANCE.value} until {end[-1]}{of}")
    elif schedule and schedule.steps_inside(plan.damped):
        not_done(Technique.DAMPED_GUIDANCE, plan.damped)
    if plan.windows:
        odd = _odd_windows(plan, schedule) if done is None else Work.ODD_WINDOWS in done.least
        whole(Technique.MSW_MSA, Work.WINDOWS, Technique.MSW_MSA.value + " on resized odd feature maps" * odd)
    if plan.split_guidance != 1:
        whole(
            Technique.SPLIT_GUIDANCE, Work.SPLIT_GUIDANCE, f"{Technique.SPLIT_GUIDANCE.value} {plan.split_guidance:g}"
        )
    if plan.anchor:
        whole(Technique.ANCHOR, Work.ANCHOR, f"{Technique.ANCHOR.value} {plan.anchor:g}")
    if not parts and done is None and all(what.endswith(SETTLED) for what in left_out):
        return f"nothing: {SETTLED}"
    return ", ".join([*parts, *(f"no {what}" for what in left_out)])


def _odd_windows(plan: Plan, schedule: Schedule | None) -> bool:
    """Whether windows meet a side they can cut in two only after resizing it, in any phase of the pass."""
    spans = plan.strided.span, plan.pooled.span
    due = [bool(schedule.steps_inside(span)) if schedule else span.end > 0 for span in spans]
    phases = itertools.product(*({False, is_due} for is_due in due))
    sizes = [plan.sizes(strided=strided, pooled=pooled) for strided, pooled in phases]
    return any(side % 2 for at in sizes for site in plan.windows for side in plan.window_size(site, at))


def _end(plan: Plan, work: Work, span: Span, schedule: Schedule, done: Done | None) -> int:
    """The step after which a part is over; 0 if it is not in the pass, or was not done in it."""
    if done is None:
        steps = plan.guided(schedule, span) if work in ON_GUIDANCE else schedule.steps_inside(span)
        return steps[-1] + 1 if steps else 0
    least = done.least.get(work, math.inf)
    with_it = [timestep for timestep in done.called if timestep >= least and schedule.inside(span, timestep)]
    return done.step(schedule, min(with_it)) if with_it else 0
