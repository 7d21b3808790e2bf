"""What is timed: full-size UNets with random weights, and the methods around them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import hidiffusion.hidiffusion as official_code
import torch
from ldm.modules.diffusionmodules.util import GroupNorm32
from torch import nn

from benchmarks.quality.deep_shrink import deep_shrink, shrunk_steps
from hidiffusion_ext.core import Method as CoreMethod
from hidiffusion_ext.core import Options, Plan, Run, Schedule, Span, make_plan, map_unet
from hidiffusion_ext.core.options import FasterSecondPass
from hidiffusion_ext.core.parts.damped_guidance import DampedGuidance
from hidiffusion_ext.core.parts.deep_cache import DeepCache, over_kept
from hidiffusion_ext.core.parts.raunet import RAUNet
from hidiffusion_ext.core.parts.redilation import Redilation
from hidiffusion_ext.core.parts.relay import Relay
from hidiffusion_ext.core.parts.windows import MSWMSA
from hidiffusion_ext.core.sizes import CELL
from ldm_unet import SD15, SDXL, ldm_unet
from official_hidiffusion import NAMES, DiffusionPipeline, diffusers_unet

from .autoencoder import DECODE, DECODE_NATIVE, ENCODE, Autoencoder
from .calls import (
    ALWAYS,
    Call,
    Method,
    OperationCounter,
    Patch,
    Phase,
    Setting,
    calls_of,
    carried_out,
    counted,
    evaluate,
    uniform,
)
from .hyper_tile import TILE, hyper_tile
from .two_passes import DEEP_CACHE, KEPT, Job

MODELS = {"sd15": SD15, "sdxl": SDXL}


def _scalecrafter(*, msw_msa: bool = False, dispersion: bool = False, damped_guidance: bool = False) -> Options:
    return Options(
        method=CoreMethod.SCALECRAFTER, msw_msa=msw_msa, dispersion=dispersion, damped_guidance=damped_guidance
    )


OURS = {
    "RAU-Net + MSW-MSA": Options(),
    "RAU-Net": Options(msw_msa=False),
    "MSW-MSA": Options(rau_net=False),
    "Relay": Options(method=CoreMethod.RELAY),
    "Relay, nothing left out": Options(method=CoreMethod.RELAY, faster_second_pass=FasterSecondPass.OFF),
    "ScaleCrafter": _scalecrafter(),
    "ScaleCrafter + dispersion": _scalecrafter(dispersion=True),
    "ScaleCrafter + damped guidance": _scalecrafter(damped_guidance=True),
    "ScaleCrafter + MSW-MSA": _scalecrafter(msw_msa=True),
}
"""Dispersion and damped guidance do something from three times the native side on; damped guidance needs two rows."""

VANILLA, VANILLA_DIFFUSERS, OFFICIAL = "vanilla", "vanilla diffusers", "official"
BASELINE = dict.fromkeys([OFFICIAL, DEEP_CACHE, VANILLA_DIFFUSERS], VANILLA_DIFFUSERS)
"""What a method's time is divided by, where that is not the plain ldm UNet."""

AUTOENCODER = "autoencoder"


def always(steps: int) -> dict[str, float]:
    """The counts of a method whose calls are all the same."""
    return {ALWAYS: steps}


@contextmanager
def made_on(device: str, dtype: torch.dtype) -> Generator[None]:
    """While open, modules are made where and as they are needed: not every card holds SDXL in single precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def in_precision(unet: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The ldm UNet with weights of this type, as the hosts have it: ldm's own group norms stay in single precision."""
    unet.to(dtype)
    unet.dtype = dtype  # type: ignore[assignment]
    for module in unet.modules():
        if isinstance(module, GroupNorm32):
            module.float()
    unet.get_submodule("time_embed").register_forward_pre_hook(lambda module, args: args[0].to(dtype))
    return unet


class Subject:
    """A model at one setting, with every method on the same weights."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.shape = MODELS[setting.model]
        with made_on(setting.device, setting.dtype):
            self.unet = in_precision(ldm_unet(self.shape), setting.dtype)
        self.counter = OperationCounter(self.shape, setting)
        factory: dict[str, Any] = {"device": setting.device, "dtype": setting.dtype}
        self.x = torch.randn(setting.batch, 4, *setting.latent, **factory)
        self.context = torch.randn(setting.batch, 77, self.shape.context, **factory)
        self.job = Job(self.unet, self.shape, setting, OURS["MSW-MSA"], self.context)

    def methods(self) -> Iterator[Method]:
        """Every method that runs at this setting, the plain UNet first."""
        unpatched = (Phase(ALWAYS, 0, partial(self.counter.count, nullcontext(), 0)),)
        yield Method(VANILLA, unpatched, always, nullcontext, self._call)
        seen: list[Plan] = []
        for name, options in OURS.items():
            plan = make_plan(options, map_unet(self.unet), self.setting.latent)
            damped = plan.part(DampedGuidance)
            halves = damped is None or not damped.due(self.setting.schedule) or self.setting.batch % 2 == 0
            if plan.active and plan not in seen and halves:
                seen.append(plan)
                yield self._planned(name, plan, partial(self._patched, plan), self._call)
        yield from self.job.methods()
        yield Method(VANILLA_DIFFUSERS, unpatched, always, *self._diffusers(official=False))
        plan = make_plan(Options(), map_unet(self.unet), self.setting.latent)
        if plan.active:
            yield self._planned(OFFICIAL, plan, *self._diffusers(official=True))
        yield Method("token merging 50%", (Phase(ALWAYS, 0),), always, self._token_merging, self._call)
        yield self._deep_shrink()
        yield self._hyper_tile()
        yield self._autoencoder()

    def _planned(self, name: str, plan: Plan, open: Callable[[], Patch], call: Call) -> Method:
        """A pass cut where what is active changes."""

        def counts(steps: int) -> dict[str, float]:
            found, schedule = defaultdict[str, float](float), uniform(steps)
            for step, timestep in enumerate(schedule.timesteps):
                found[_active(plan, step, schedule)] += calls_of(plan, schedule, timestep)
            return found

        def phase(name: str) -> Phase:
            step = active.index(name)
            before = step - 1 if KEPT in name else None
            return Phase(name, step, self._counting(plan, step, before), before)

        active = [_active(plan, step, self.setting.schedule) for step in range(self.setting.steps)]
        return Method(name, tuple(map(phase, dict.fromkeys(active))), counts, open, call)

    def _call(self, step: int, run: Run | None) -> None:
        self._evaluate(step, run, self.x)

    def _evaluate(self, step: int, run: Run | None, x: torch.Tensor) -> None:
        t = torch.full((len(x),), self.setting.timesteps[step], device=x.device)
        evaluate(self.unet, x, t, self.context, run)

    def _diffusers(self, *, official: bool) -> tuple[Callable[[], Patch], Call]:
        """What opens and calls a diffusers UNet; it has weights of its own, so it is made only if it is opened."""

        @cache
        def made() -> nn.Module:
            unet = diffusers_unet(self.unet, self.shape).to(self.x)
            if official:
                pipeline = DiffusionPipeline(unet, NAMES[self.shape.family], self.setting.steps)
                official_code.apply_hidiffusion(pipeline)  # type: ignore[arg-type]
            return unet

        def open() -> Patch:
            made()
            return nullcontext()

        def call(step: int, run: Run | None) -> None:
            unet = made()
            # The official code counts calls in every module it patched; the count is set to the step that is timed.
            for module in unet.modules():
                if hasattr(module, "timestep"):
                    module.timestep = step  # type: ignore[assignment]
            t = torch.full((len(self.x),), self.setting.timesteps[step], device=self.x.device)
            unet(self.x, t, encoder_hidden_states=self.context)

        return open, call

    def _patched(self, plan: Plan) -> Patch:
        return carried_out(self.unet, plan, self.setting.timesteps)

    def _counting(self, plan: Plan, step: int, before: int | None) -> Callable[[], int]:
        return lambda: self.counter.count(self.counter.patched(plan), step, before)

    @contextmanager
    def _token_merging(self) -> Generator[None, None, None]:
        import tomesd

        wrapper, model = nn.Module(), nn.Module()
        wrapper.diffusion_model, model.model = self.unet, wrapper
        tomesd.apply_patch(model, ratio=0.5)
        try:
            yield
        finally:
            tomesd.remove_patch(model)

    def _deep_shrink(self) -> Method:
        schedule = self.setting.schedule
        first = len(shrunk_steps(schedule))

        def around(unet: nn.Module) -> AbstractContextManager[None]:
            return deep_shrink(unet, map_unet(unet), schedule)

        def counts(steps: int) -> dict[str, float]:
            shrunk = len(shrunk_steps(uniform(steps)))
            return {"shrunk": shrunk, "nothing": steps - shrunk}

        def phase(name: str, step: int) -> Phase:
            return Phase(name, step, lambda: self.counter.count(around(self.counter.unet), step))

        phases = phase("shrunk", 0), phase("nothing", first)
        return Method("Deep Shrink", phases, counts, lambda: around(self.unet), self._call)

    def _hyper_tile(self) -> Method:
        def around(unet: nn.Module) -> AbstractContextManager[None]:
            return hyper_tile(unet, map_unet(unet), self.setting.latent, TILE // CELL)

        phase = Phase(ALWAYS, 0, lambda: self.counter.count(around(self.counter.unet), 0))
        return Method("HyperTile", (phase,), always, lambda: around(self.unet), self._call)

    def _autoencoder(self) -> Method:
        model = Autoencoder().to(self.x)
        work = [
            (DECODE, partial(model.decode, self.x)),
            (DECODE_NATIVE, partial(model.decode, self.job.small)),
            (ENCODE, partial(model.encode_size_of, self.x)),
        ]

        def call(step: int, run: Run | None) -> None:
            work[step][1]()

        with torch.device("meta"):
            shapes = Autoencoder()
        large, small = self.job.large.to("meta"), self.job.small.to("meta")
        count: list[Callable[[], object]] = [
            lambda: shapes.decode(large),
            lambda: shapes.decode(small),
            lambda: shapes.encode_size_of(large),
        ]
        phases = tuple(Phase(name, step, partial(counted, count[step])) for step, (name, _) in enumerate(work))
        return Method(AUTOENCODER, phases, lambda steps: {}, nullcontext, call, ())


def _active(plan: Plan, step: int, schedule: Schedule) -> str:
    """What is active at a step, in words."""

    def inside(span: Span) -> bool:
        return step in schedule.steps_inside(span)

    parts: list[str] = []
    if raunet := plan.part(RAUNet):
        pairs = {"strided pair": raunet.strided.span, "pooled pair": raunet.pooled.span}
        parts += [name for name, span in pairs.items() if inside(span)]
    if (redilation := plan.part(Redilation)) and inside(redilation.span):
        factors = [redilation.factor_at(site, step, schedule, base=False) for site in redilation.sites]
        parts.append(f"re-dilation by {max(max(factor) for factor in factors if factor):g}")
    if (damped := plan.part(DampedGuidance)) and inside(damped.span):
        parts.append("damped guidance")
    relay = plan.part(Relay)
    stage = relay.stage(inside) if relay else None
    if stage:
        parts.append("native" if stage.native else "stage between")
    if plan.part(MSWMSA) and not (stage and stage.native):
        parts.append("windows")
    if (deep_cache := plan.part(DeepCache)) and not stage and step in over_kept(schedule, deep_cache.span):
        parts.append(KEPT)
    return " + ".join(parts) or "nothing"
