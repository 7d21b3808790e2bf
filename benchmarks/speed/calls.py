"""What a benchmark of speed calls: a setting, kinds of UNet calls, and how many of each a job has."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hidiffusion_ext.core import Plan, Run, Schedule, hidiffusion
from hidiffusion_ext.core.native_first import RESTART_SIGMA, second_steps
from hidiffusion_ext.core.parts.damped_guidance import DampedGuidance
from hidiffusion_ext.core.schedule import DISCRETE
from hidiffusion_ext.core.sizes import CELL, Size
from ldm_unet import Shape, ldm_unet

from .autoencoder import DECODE

ALWAYS = "always"


@dataclass(frozen=True)
class Setting:
    """One comparison: everything that is the same for all methods in it.

    Attributes:
        steps: Of a whole pass.
        over_picture: Whether the pass is the second one of such a job.
    """

    model: str
    height: int
    width: int
    batch: int
    dtype: torch.dtype
    device: str
    steps: int
    over_picture: bool = False

    @property
    def latent(self) -> Size:
        return self.height // CELL, self.width // CELL

    @property
    def schedule(self) -> Schedule:
        return over_picture(self.steps) if self.over_picture else uniform(self.steps)

    @property
    def timesteps(self) -> list[float]:
        return list(self.schedule.timesteps)


def uniform(steps: int) -> Schedule:
    """The official code's schedule: evenly spaced, the last step at 1."""
    return Schedule([1000 / steps * (steps - 1 - step) + 1 for step in range(steps)])


def over_picture(steps: int) -> Schedule:
    """Evenly spaced steps from where Native first's second pass begins, in a job whose first pass has so many."""
    first, count = DISCRETE.at_sigma(RESTART_SIGMA), second_steps(steps)
    return Schedule([first * (1 - step / count) for step in range(count)])


@dataclass(frozen=True)
class Phase:
    """Steps of a pass that cost the same.

    Attributes:
        name: What is active in them.
        step: One of them.
        before: A step that has to be called before it in the same pass, which is neither timed nor counted.
        count_operations: Counts the floating-point operations of one call, which takes seconds.
    """

    name: str
    step: int
    count_operations: Callable[[], int | None] = lambda: None
    before: int | None = None

    @cached_property
    def operations(self) -> int | None:
        """Floating-point operations of one call; None if they cannot be counted."""
        return self.count_operations()


Patch = AbstractContextManager[Run | None]
Call = Callable[[int, Run | None], None]


@dataclass(frozen=True)
class Method:
    """A way to make a picture.

    Attributes:
        phases: Its kinds of UNet calls.
        counts: How many calls of each phase a job of so many steps has; of a guided job a call without guidance counts
            half.
        open: Patches, and gives the run, if there is one.
        call: Evaluates once, at a step, with what `open` gave.
        pictures: What a job needs of the autoencoder.
    """

    name: str
    phases: tuple[Phase, ...]
    counts: Callable[[int], Mapping[str, float]]
    open: Callable[[], Patch]
    call: Call
    pictures: tuple[str, ...] = (DECODE,)


def calls_of(plan: Plan, schedule: Schedule, timestep: float) -> float:
    """How many guided calls of the UNet a step of a guided job costs: half of one where guidance is left out."""
    return 0.5 if plan.leaving_unguided(schedule, timestep) else 1


@contextmanager
def carried_out(unet: nn.Module, plan: Plan, timesteps: list[float]) -> Generator[Run]:
    """Patches a UNet as planned while it is open."""
    run = Run(Schedule(timesteps))
    with hidiffusion(unet, plan, run):
        yield run


def evaluate(unet: nn.Module, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor, run: Run | None) -> None:
    """One evaluation as a sampler makes it: noise-damped guidance has the unconditional half done once more."""
    unet(x, t, context=context)
    if run and run.has(DampedGuidance):
        half = slice(len(x) // 2)
        with run.base_evaluation():
            unet(x[half], t[half], context=context[half])


class OperationCounter:
    """Counts the floating-point operations of a UNet call without computing it: on a UNet that has shapes only."""

    def __init__(self, shape: Shape, setting: Setting) -> None:
        self.setting = setting
        with torch.device("meta"):
            self.unet: nn.Module = ldm_unet(shape)
        self.x = torch.zeros(setting.batch, 4, *setting.latent)
        self.context = torch.zeros(setting.batch, 77, shape.context)
        shapes_only(self.unet, self.unet.get_submodule("time_embed"))
        self.unet.register_forward_hook(lambda module, args, answer: torch.zeros(answer.shape))  # patches work on it

    def patched(self, plan: Plan) -> Patch:
        return carried_out(self.unet, plan, self.setting.timesteps)

    def count(self, patch: Patch, step: int, before: int | None = None) -> int:
        """Operations of one evaluation at a step, with the patch open; `before` is evaluated before it."""
        with patch as run:
            if before is not None:
                self._evaluate(before, run)
            return counted(lambda: self._evaluate(step, run))

    def _evaluate(self, step: int, run: Run | None) -> None:
        t = torch.full((len(self.x),), self.setting.timesteps[step])
        evaluate(self.unet, self.x, t, self.context, run)


def shapes_only(unet: nn.Module, embedding: nn.Module) -> None:
    """Has a UNet on the meta device called with numbers: patches read what goes in.

    Args:
        unet: The UNet.
        embedding: What embeds the timesteps in it.
    """

    def without_numbers(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value.to("meta") if isinstance(value, torch.Tensor) else value for value in args)

    first = next(module for module in unet.modules() if isinstance(module, nn.Conv2d))
    shown = [module for name, module in unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    for module in (embedding, first, *shown):
        module.register_forward_pre_hook(without_numbers)


def counted(call: Callable[[], object]) -> int:
    """The floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()
