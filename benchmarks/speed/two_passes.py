"""Jobs of two passes: a native picture, and a second pass over it, enlarged; by hand, and as Native first has it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace

import torch
from DeepCache import DeepCacheSDHelper
from torch import nn

from hidiffusion_ext.core import Options, Plan, Run, Situation, make_plan, map_unet
from hidiffusion_ext.core.native_first import RESTART_SIGMA, first_size, steps_needed
from hidiffusion_ext.core.options import FasterSecondPass
from hidiffusion_ext.core.parts.deep_cache import DeepCache, over_kept
from hidiffusion_ext.core.sizes import CELL
from ldm_unet import Shape
from official_hidiffusion import diffusers_unet

from .autoencoder import DECODE, DECODE_NATIVE, ENCODE
from .calls import (
    Method,
    OperationCounter,
    Patch,
    Phase,
    Setting,
    calls_of,
    carried_out,
    counted,
    evaluate,
    over_picture,
    shapes_only,
    uniform,
)
from .hyper_tile import TILE, hyper_tile

HIRES_FIX, HYPER_TILE, DEEP_CACHE = "hires fix", "hires fix + HyperTile", "hires fix + DeepCache"
NATIVE_FIRST, NOTHING_LEFT_OUT = "Native first", "Native first, nothing left out"

NATIVE, NATIVE_KEPT, FRESH, KEPT = "native", "native, over what is kept", "over the picture", "over what is kept"
"""Phases."""

FIRST = -1
"""What stands for any step of the first pass, where a step of the second one is meant."""

INTERVAL = 3
"""Every third step is computed whole: what the documentation of DeepCache's package recommends."""


class Job:
    """A native picture and a second pass over it, on one UNet.

    Args:
        unet: The UNet.
        shape: Its dimensions.
        setting: The large picture's.
        options: What Native first is asked for.
        context: What the UNet is shown, [B, 77, C].
    """

    def __init__(
        self, unet: nn.Module, shape: Shape, setting: Setting, options: Options, context: torch.Tensor
    ) -> None:
        self.unet, self.shape, self.options, self.context = unet, shape, options, context
        self.second = replace(setting, over_picture=True)
        width, height = first_size(setting.width, setting.height, self._plan(options).native)
        self.first = replace(setting, width=width, height=height)
        self.large, self.small = (
            torch.randn(setting.batch, 4, *each.latent).to(context) for each in (self.second, self.first)
        )

    def methods(self) -> Iterator[Method]:
        """By hand, with what others have for it, and as Native first has it."""
        yield self._by_hand(HIRES_FIX, lambda unet: nullcontext())
        yield self._by_hand(HYPER_TILE, self._tiled)
        yield self._packaged()
        for name, faster in ((NATIVE_FIRST, FasterSecondPass.ON), (NOTHING_LEFT_OUT, FasterSecondPass.OFF)):
            plan = self._plan(replace(self.options, faster_second_pass=faster))
            if plan.active:
                yield self._planned(name, plan, short=faster.has(FasterSecondPass.SHORT))

    def _plan(self, options: Options) -> Plan:
        return make_plan(options, map_unet(self.unet), self.second.latent, Situation(hires=True, over_picture=True))

    def _tiled(self, unet: nn.Module) -> Patch:
        return hyper_tile(unet, map_unet(unet), self.second.latent, TILE // CELL)

    def _by_hand(self, name: str, around: Callable[[nn.Module], Patch]) -> Method:
        def counts(steps: int) -> dict[str, float]:
            return {NATIVE: steps, FRESH: over_picture(steps).steps}

        return self._method(name, around, counts)

    def _planned(self, name: str, plan: Plan, *, short: bool) -> Method:
        """As planned; `short`: the first pass ends where the second one makes its work anew."""
        part = plan.part(DeepCache)

        def kept(steps: int) -> list[int]:
            return over_kept(over_picture(steps), part.span) if part else []

        def counts(steps: int) -> dict[str, float]:
            schedule = over_picture(steps)
            first = steps_needed(uniform(steps), RESTART_SIGMA, plan.enlargement) if short else steps
            found = {NATIVE: first, FRESH: 0.0, KEPT: 0.0}
            for step, timestep in enumerate(schedule.timesteps):
                found[KEPT if step in kept(steps) else FRESH] += calls_of(plan, schedule, timestep)
            return found

        def around(unet: nn.Module) -> Patch:
            return carried_out(unet, plan, self.second.timesteps)

        return self._method(name, around, counts, kept(self.second.steps))

    def _method(
        self,
        name: str,
        around: Callable[[nn.Module], Patch],
        counts: Callable[[int], dict[str, float]],
        kept: list[int] | None = None,
    ) -> Method:
        """A method on the UNet; `kept`: the steps of the second pass that go over what is kept."""

        def count(step: int, before: int | None = None) -> int:
            counter = OperationCounter(self.shape, self.second)
            return counter.count(around(counter.unet), step, before)

        def call(step: int, run: Run | None) -> None:
            x, timesteps = (self.small, self.first.timesteps) if step == FIRST else (self.large, self.second.timesteps)
            t = torch.full((len(x),), timesteps[max(step, 0)], device=x.device)
            evaluate(self.unet, x, t, self.context, run)

        native = Phase(NATIVE, FIRST, lambda: OperationCounter(self.shape, self.first).count(nullcontext(), 0))
        phases = [native, Phase(FRESH, 0, partial(count, 0))]
        if kept:
            step, before = kept[0], kept[0] - 1
            phases.append(Phase(KEPT, step, partial(count, step, before), before))
        return Method(name, tuple(phases), counts, lambda: around(self.unet), call, (DECODE_NATIVE, ENCODE, DECODE))

    def _packaged(self) -> Method:
        """DeepCache's own package in both passes: steps 0 and 1 are those of the first, 2 and 3 of the second."""

        @cache
        def made() -> nn.Module:
            return diffusers_unet(self.unet, self.shape).to(self.large)

        def call(step: int, run: Run | None) -> None:
            made()(self.small if step < 2 else self.large, STEPS[step], encoder_hidden_states=self.context)

        def count(setting: Setting, step: int, before: int | None = None) -> int:
            counter = OperationCounter(self.shape, setting)
            with torch.device("meta"):
                unet = diffusers_unet(counter.unet, self.shape)
            shapes_only(unet, unet.get_submodule("time_embedding"))

            def evaluated(step: int) -> None:
                unet(counter.x, STEPS[step], encoder_hidden_states=counter.context)

            with deep_cache(unet):
                if before is not None:
                    evaluated(before)
                return counted(partial(evaluated, step))

        def counts(steps: int) -> dict[str, float]:
            second = over_picture(steps).steps
            whole, whole_second = -(-steps // INTERVAL), -(-second // INTERVAL)
            return {NATIVE: whole, NATIVE_KEPT: steps - whole, FRESH: whole_second, KEPT: second - whole_second}

        phases = (
            Phase(NATIVE, 0, partial(count, self.first, 0)),
            Phase(NATIVE_KEPT, 1, partial(count, self.first, 1, 0), 0),
            Phase(FRESH, 2, partial(count, self.second, 2)),
            Phase(KEPT, 3, partial(count, self.second, 3, 2), 2),
        )
        return Method(DEEP_CACHE, phases, counts, lambda: deep_cache(made()), call, (DECODE_NATIVE, ENCODE, DECODE))


STEPS = [torch.tensor(timestep) for timestep in (999, 949, 389, 324)]
"""The timesteps of a first pass's whole step and of one that goes over what it kept, and of a second pass's."""


@contextmanager
def deep_cache(unet: nn.Module) -> Generator[None]:
    """DeepCache's package on a diffusers UNet: even `STEPS` are computed whole."""
    timesteps = torch.stack([STEPS[0], STEPS[1], STEPS[1], STEPS[2], STEPS[3]])
    helper = DeepCacheSDHelper(SimpleNamespace(unet=unet, scheduler=SimpleNamespace(timesteps=timesteps)))
    helper.set_params(cache_interval=INTERVAL, cache_branch_id=0)
    helper.enable()
    try:
        yield
    finally:
        helper.disable()
