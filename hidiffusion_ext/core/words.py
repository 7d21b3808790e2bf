"""What a pass gets, and got, in words: for the page, the log and the infotext."""

from __future__ import annotations

import math

from .done import Done
from .parts.part import NOT_GUIDED, WHOLE, Need, Part
from .plan import LeftOut, Plan
from .schedule import Schedule, Span

SETTLED = "the layout is settled where this pass begins"
"""Why a part that works on a picture's layout has nothing to do in a pass that begins with little noise."""

LESS_NOISE = "the model was never called with the noise that it is for"


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
    telling = Telling(plan, schedule, about=about, done=done)
    told, left_out = list[str](), list(plan.left_out)
    for part in plan.parts:
        words = part.told(telling)
        if words:
            told.append(words)
        elif words is not None and (reason := telling.why_not(part)):
            left_out.append(LeftOut(part.name, reason))
    if not told and done is None and all(each.reason == SETTLED for each in left_out):
        return f"nothing: {SETTLED}"
    return ", ".join([*told, *map(str, left_out)])


class Telling:
    """What parts find their words with.

    Args:
        plan, schedule, about, done: Those of `describe`.

    Attributes:
        of: What is said behind the last step of something, " of 20"; empty without a schedule.
    """

    def __init__(self, plan: Plan, schedule: Schedule | None, *, about: bool, done: Done | None) -> None:
        self.plan, self.schedule, self.done = plan, schedule, done
        self._about = "about " * about
        self.of = f" of {schedule.steps}" if schedule else ""

    def ends(self, part: Part, *works: tuple[str, Span]) -> list[str]:
        """When parts of a part are over, the earliest first; nothing for what is not done.

        Args:
            part: Whose they are.
            works: What each is noted as, and when it works.
        """
        if self.schedule is None:
            shares = sorted({span.end for _, span in works if span.end > span.start})
            return [f"{end:.0%} of the noise" for end in shares]
        steps = sorted({self._end(part, what, span, self.schedule) for what, span in works} - {0})
        return [f"{self._about}step {step}" for step in steps]

    def begins(self, part: Part, span: Span) -> str:
        """The first step of a part; empty if it is not in the pass, or was not done in it."""
        assert self.schedule is not None
        if self.done is None:
            steps = self.schedule.steps_inside(span)
            return f"{self._about}step {steps[0] + 1}" if steps else ""
        most = self.done.most.get(part.name)
        return "" if most is None else f"step {self.done.step(self.schedule, most)}"

    def whole(self, part: Part, words: str) -> str:
        """The words for a part that works for the whole pass, on guidance in all guided steps; with its end, if that is
        not the pass's.
        """
        if self.schedule is None:
            return words
        if self.done is None:
            last = self._end(part, part.name, WHOLE, self.schedule)
            ended = last < self.schedule.steps
        elif part.name in self.done.least:
            last = self.done.step(self.schedule, self.done.least[part.name])
            ended = self.done.ended_before_the_pass(part.name)
        else:
            return ""
        return words + f" until step {last}{self.of}" * ended if last else ""

    def why_not(self, part: Part) -> str:
        """Why nothing is said of a part; empty where that is known or said elsewhere."""
        schedule, done = self.schedule, self.done
        if schedule is None or (done and part.name in done.left_out):
            return ""
        if not part.due(schedule):
            return SETTLED
        if done is None:  # what works on guidance alone comes here
            return NOT_GUIDED
        if done.cut_short:
            return ""
        met = any(schedule.inside(span, called) for span in part.spans for called in done.called)
        return part.not_met if met else LESS_NOISE

    def _end(self, part: Part, what: str, span: Span, schedule: Schedule) -> int:
        """The step after which something is over; 0 if it is not in the pass, or was not done in it."""
        done = self.done
        if done is None:
            is_guided = Need.GUIDANCE in part.needs
            steps = self.plan.guided(schedule, span) if is_guided else schedule.steps_inside(span)
            return steps[-1] + 1 if steps else 0
        least = done.least.get(what, math.inf)
        with_it = [timestep for timestep in done.called if timestep >= least and schedule.inside(span, timestep)]
        return done.step(schedule, min(with_it)) if with_it else 0
