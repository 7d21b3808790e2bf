"""Leaves steps of a pass without guidance, by the way that hosts have for it.

A1111's and the Forge family's denoisers leave out the unconditional rows where the noise is below a level that they are
handed in each call ("negative guidance minimum sigma"), by a setting in all such calls instead of every other one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from modules import shared

from ..core import Plan, Run
from .guiding import SamplerKind, compares_timesteps
from .wrapping import wrap_method

LEVEL, EVERYWHERE = "s_min_uncond", "s_min_uncond_all"
"""The denoiser's argument, and the setting."""

NOTED = ("NGMS", "NGMS all steps")
"""What hosts write into texts about it."""


@contextmanager
def leaving_unguided(p: Any, plan: Plan, run: Run) -> Generator[None, None, None]:
    """While open, guidance is left out where parts of a plan that are at work want it to be.

    Args:
        p: The job; its texts say nothing of it.
        plan, run: Of the pass.
    """
    with ExitStack() as stack:
        for part in plan.parts:
            if (span := part.unguided()) and part.due(run.schedule):
                timestep = run.schedule.begins(span)
                level = (
                    timestep
                    if compares_timesteps(p, SamplerKind.of(p.sampler))
                    else run.schedule.levels.sigma(timestep)
                )
                _leave_out(stack, p, level, lambda part=part: part in run.at_work, lambda part=part: run.did(part.name))
        yield


def _leave_out(stack: ExitStack, p: Any, level: float, is_at_work: Callable[[], bool], did: Callable[[], None]) -> None:
    """Has the denoiser of a job leave out unconditional rows below a level, and tells when it does."""

    def forward(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if LEVEL not in kwargs or not is_at_work():
            return original(*args, **kwargs)
        texts, before = p.extra_generation_params, dict(vars(shared.opts))
        try:
            vars(shared.opts)[EVERYWHERE] = True  # over the setting, which stays what it is for whoever saves it
            result = original(*args, **{**kwargs, LEVEL: level})
            if NOTED[0] in texts:
                did()
            return result
        finally:
            vars(shared.opts).pop(EVERYWHERE, None)
            vars(shared.opts).update({EVERYWHERE: before[EVERYWHERE]} if EVERYWHERE in before else {})
            for name in NOTED:
                texts.pop(name, None)

    wrap_method(stack, p.sampler.model_wrap_cfg, "forward", forward)
