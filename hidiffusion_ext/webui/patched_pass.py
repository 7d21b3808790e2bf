"""One sampling pass of a job: what is around it, what is said of it, and what if it fails."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch

from ..core import Done, Family, Options, Plan, Refused, Run, Schedule, hidiffusion
from ..core.sizes import CELL, Size
from ..core.words import describe
from ..hosts.compiled import eagerly
from ..hosts.fallback import falling_back
from ..hosts.guidance import changed_guidance
from ..hosts.model import Model
from ..hosts.passes import plan_pass
from ..hosts.unguided import leaving_unguided
from . import infotext
from .account import Account
from .log import NOT_YOURS, logger, telling


class PatchedPass:
    """A pass that is patched as asked for, and patched anew for its rest when the host takes another model (refiner).

    Args:
        p: The job.
        options: What the user asked for.
        begin: The latent [B, C, H, W] that the pass begins with, before noise is added.
        refuse: Says why a pass runs unchanged.
        hires: Whether it is the second pass of a hires-fix job.
    """

    def __init__(
        self, p: Any, options: Options, begin: torch.Tensor, refuse: Callable[[str], None], *, hires: bool
    ) -> None:
        self._p, self._options, self._begin, self._refuse, self._hires = p, options, begin, refuse, hires
        self._latent: Size = (begin.shape[-2], begin.shape[-1])
        self._began, self._done = False, Done()
        self._family: Family | None = None

    @contextmanager
    def patched(self, schedule: Schedule) -> Generator[None, None, None]:
        """What is around the pass, or its rest.

        Raises:
            Refused: if the model cannot be patched, or not as asked.
        """
        model, plan = plan_pass(self._p, self._options, self._latent, hires=self._hires, schedule=schedule)
        if not self._announce(plan, schedule):
            self._began = True
            yield
            return
        run = Run(schedule, torch.Generator().manual_seed(int(self._p.seeds[0])), self._done)
        account = Account(self._p, self._options, plan, run, self._refuse, hires=self._hires)
        with self._at_work(model, plan, run, account):
            self._began = True
            with account.kept():
                yield

    def failed(self, error: Exception) -> None:
        """Says that the pass, or its rest, runs unchanged."""
        with telling():
            reason = str(error)
            if not isinstance(error, Refused):
                reason = f"unexpected: {error!r}"
                logger.error(NOT_YOURS, exc_info=error)
            if self._began:
                reason = f"from the model switch on: {reason}"
                logger.warning("not used %s", reason)
                infotext.add_refused(self._p.extra_generation_params, reason)
            else:
                self._refuse(reason)

    def _announce(self, plan: Plan, schedule: Schedule) -> bool:
        """Says what is planned; returns whether anything is."""
        if self._family is not None and plan.unet.family is not self._family:
            self._done = Done()  # the parts of another family's plan mean other places
        self._family = plan.unet.family
        due, text = plan.due(schedule), describe(plan, schedule)
        if plan.left_out and not due:
            raise Refused(text)
        if not self._began:
            params = self._p.extra_generation_params
            infotext.write_active(params, self._options, text if due else "", hires=self._hires)
        about = f"{plan.unet.family.value}, {self._latent[1] * CELL}x{self._latent[0] * CELL}"
        about += ", hires pass" * self._hires + ", from the model switch on" * self._began
        about += f", preset {plan.preset.value}" * plan.active
        logger.info("%s: %s", about, text)
        return due

    @contextmanager
    def _at_work(self, model: Model, plan: Plan, run: Run, account: Account) -> Generator[None, None, None]:
        """Puts a plan to work in the UNet, and on guidance."""

        @contextmanager
        def in_unet(plan: Plan) -> Generator[None, None, None]:
            with eagerly(), hidiffusion(model.unet, plan, run):
                yield

        with (
            falling_back(model.evaluator, plan, in_unet, run, account.left_out) as fallback,
            changed_guidance(self._p.sampler, run, plan.changes(run, self._begin), fallback.change),
            leaving_unguided(self._p, plan, run),
        ):
            yield


def unclosed(error: Exception) -> None:
    """Says that something around a pass, which went on, failed."""
    logger.error(NOT_YOURS, exc_info=error)
