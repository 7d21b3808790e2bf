"""What is said about a pass when it has run, in infotext, log and page: what its hooks did."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Any

from ..core import Options, Plan, Run
from ..core.words import describe
from . import infotext
from .log import logger, telling

TILED = "the model was only called at other sizes than the pass's (tiled sampling)"
NOTHING_YET = "nothing of it, as it was stopped before"
NEVER_CALLED = "the model was never called; something else computes in its place"


class Account:
    """The account of one pass, or of its rest after a switch of models.

    Args:
        p: The job.
        options: What the user asked for.
        plan, run: Of the pass.
        hires: Whether it is the hires pass.
        refuse: Says why a pass ran unchanged.
    """

    def __init__(
        self, p: Any, options: Options, plan: Plan, run: Run, refuse: Callable[[str], None], *, hires: bool
    ) -> None:
        self._p, self._options, self._plan, self._run, self._refuse = p, options, plan, run, refuse
        self._hires = hires

    @contextmanager
    def kept(self) -> Generator[None, None, None]:
        """Around the pass; says what was done however it ends."""
        try:
            yield
        except BaseException:
            self._run.done.cut_short = True
            raise
        finally:
            with telling():
                self._say()

    def left_out(self, what: Collection[str], raised: str, trace: str) -> None:
        """Says that the rest of the pass is made with less of us, or without us.

        Args:
            what: The names of what is left out from now on.
            raised: What was raised, in one line.
            trace: Its traceback.
        """
        with telling():
            done, schedule, timestep = self._run.done, self._run.schedule, self._run.timestep
            step = f"step {done.step(schedule, timestep)} of {schedule.steps}" if timestep < math.inf else ""
            if done.switched_off:
                reason = "switched off" + f" in {step}" * bool(step)
                reason += f": the model could not be run with it ({raised})"
                self._p.comment(f"HiDiffusion was {reason}.")
            else:
                reason = f"no {', no '.join(what)}" + f" from {step} on" * bool(step) + f", as that failed ({raised})"
                self._p.comment(f"HiDiffusion: {reason}.")
            infotext.add_refused(self._p.extra_generation_params, reason)
            logger.error("%s\n%s", reason, trace)

    def _say(self) -> None:
        done, params = self._run.done, self._p.extra_generation_params
        text = describe(self._plan, self._run.schedule, done=done)
        if done.least:
            infotext.write_active(params, self._options, text, hires=self._hires)
            if text != describe(self._plan, self._run.schedule):
                logger.info("after the pass: %s", text)
        elif done.cut_short or done.left_out or self._p.sampler.model_wrap_cfg.step == 0:  # another model from then on
            infotext.clear(params, hires=self._hires)
            if done.cut_short:
                logger.info("after the pass: %s", NOTHING_YET)
        else:
            self._refuse({None: NEVER_CALLED, False: TILED, True: text}[done.met])
