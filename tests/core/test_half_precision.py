"""Half precision as hosts have it: everything is what it is in single precision, to the precision's own error."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import pytest
import torch
from plans import IN_A_PASS, NOTES
from torch import nn
from unets import CONTEXT, HEADS, SizedUNet, inputs

from hidiffusion_ext.core import (
    Evaluation,
    Family,
    Method,
    Options,
    Plan,
    Preset,
    Run,
    Schedule,
    Situation,
    hidiffusion,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.schedule import DISCRETE
from ldm_unet import Shape, ldm_unet

SHAPE = Shape(Family.SD1, (32, 64, 128, 256), CONTEXT, (HEADS,) * 4)
"""Where there are few cells there are more channels: a norm over two numbers tells no more than their signs."""

UNET = ldm_unet(SHAPE, kind=SizedUNet)
LATENT = (17, 16)
"""Twice the native side, and an odd one."""

TIMESTEPS = (999.0, 900.0, 150.0)
"""With the ends below in between, and those of the preset 2x."""
SCALE = 5.0


@dataclass(frozen=True)
class Case:
    """Everything that a method does in a pass, by one of its presets."""

    method: Method
    preset: Preset
    over_picture: bool

    def __str__(self) -> str:
        return f"{self.method.value} {self.preset.value}" + " over a picture" * self.over_picture

    def plan(self) -> Plan:
        options = Options(
            native_size=64,
            method=self.method,
            preset=self.preset,
            t1=0.2 if self.preset is Preset.X4 else 0.0,
            t2=0.05 if self.preset is Preset.X4 else 0.0,
            dispersion=True,
            split_guidance=2.0,
            anchor=0.5,
        )
        return make_plan(options, map_unet(UNET), LATENT, Situation(over_picture=self.over_picture))


KINDS = ((Preset.X2, False), (Preset.X4, False), (Preset.X4, True))
CASES = [Case(method, *kind) for method in IN_A_PASS for kind in KINDS]


@dataclass(frozen=True)
class Way:
    """A way to calculate, as hosts do it.

    Attributes:
        dtype: Of autocast and of what the UNet is called with; None for single precision.
        half_weights: Whether the weights are of that type as well.
        otherwise: Channels last, in inference mode, with deterministic algorithms.
    """

    dtype: torch.dtype | None
    half_weights: bool = False
    otherwise: bool = False

    @lru_cache  # noqa: B019  # there are four ways
    def unet(self) -> nn.Module:
        unet = copy.deepcopy(UNET)
        for module in unet.modules():
            # Cards take norms to single precision under autocast, processors do not.
            if self.half_weights and not isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
                for weight in module.parameters(recurse=False):
                    weight.data = weight.data.to(self.dtype)
        return unet.to(memory_format=torch.channels_last) if self.otherwise else unet

    @contextmanager
    def around(self) -> Generator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode() if self.otherwise else torch.no_grad())
            if self.otherwise:
                torch.use_deterministic_algorithms(True)
                stack.callback(torch.use_deterministic_algorithms, False)
            if self.dtype:
                stack.enter_context(torch.autocast("cpu", self.dtype))
            yield

    def given(self, x: torch.Tensor) -> torch.Tensor:
        x = x.to(self.dtype or x.dtype)
        return x.contiguous(memory_format=torch.channels_last) if self.otherwise and x.ndim == 4 else x

    def given_time(self, timesteps: torch.Tensor) -> torch.Tensor:
        """In half precision of eight bits hosts leave them single."""
        return timesteps.half() if self.dtype is torch.float16 else timesteps


SINGLE = Way(None)
WAYS = {
    "float16 under autocast": Way(torch.float16),
    "bfloat16 under autocast": Way(torch.bfloat16),
    "float16 weights": Way(torch.float16, half_weights=True, otherwise=True),
}


def latent(timestep: float) -> torch.Tensor:
    """What a sampler that adds noise of its own calls the UNet with, for one picture."""
    (clean, _), (first, _), (new, _) = (inputs(LATENT, seed=seed) for seed in range(3))
    sigma, most = DISCRETE.sigma(timestep), DISCRETE.sigma(TIMESTEPS[0])
    left = (sigma / most) ** 2
    added = (sigma**2 - (most * left) ** 2) ** 0.5
    return ((1 - left) * clean + most * left * first + added * new) / (1 + sigma**2) ** 0.5


@lru_cache
def sampled(way: Way, case: Case | None) -> tuple[list[torch.Tensor], set[str]]:
    """What guidance results in at each step of a pass, and what was done in it; without us if there is no case."""
    unet, plan = way.unet(), case.plan() if case else None
    run, text = Run(Schedule(TIMESTEPS)), way.given(inputs(LATENT, batch=2)[1])
    found: list[torch.Tensor] = []
    with way.around(), hidiffusion(unet, plan, run) if plan else nullcontext():
        for timestep in TIMESTEPS:
            x, t = way.given(latent(timestep)), way.given_time(torch.full((2,), timestep))
            cond, uncond = unet(torch.cat([x, x]), t, context=text).chunk(2)
            guided = uncond + SCALE * (cond - uncond)

            def again(x: torch.Tensor = x, t: torch.Tensor = t) -> torch.Tensor:
                return unet(x, t[1:], context=text[1:])

            for change in plan.changes(run, way.given(latent(1.0))) if plan else []:
                guided = change(Evaluation(guided, uncond, again))
            assert guided.dtype == cond.dtype
            found.append(guided.float().clone())
    return found, set(run.done.least)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_the_answer_is_that_of_single_precision(way: Way, case: Case) -> None:
    """As nearly as the UNet's own is."""
    own = [error(*each) for each in zip(sampled(way, None)[0], sampled(SINGLE, None)[0])]
    ours = [error(*each) for each in zip(sampled(way, case)[0], sampled(SINGLE, case)[0])]
    print(way.dtype, case, [f"{o:.5f} {u:.5f}" for o, u in zip(ours, own)], max(ours) / max(own))
    assert max(ours) < 2 * max(own)
    assert sampled(way, case)[1] == sampled(SINGLE, case)[1]


def test_everything_that_can_be_done_is_done_in_half_precision() -> None:
    done = [sampled(SINGLE, case)[1] for case in CASES]
    assert set().union(*done) == NOTES
