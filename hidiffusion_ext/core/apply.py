"""The public context manager: patches a UNet for one sampling pass and leaves it exactly as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import nn

from . import control, dispersion, patching, raunet, redilation, relay, windows
from .arithmetic import per_row
from .done import Done, Work
from .geometry import kept_to
from .options import WindowShift
from .plan import Plan, Redilation, Stage, WindowSite
from .resizing import bilinear
from .schedule import Schedule
from .sizes import FeatureSizes, Size
from .unet_map import Axes


class Run:
    """The state of one pass: the only thing that changes while sampling.

    Args:
        schedule: The noise levels of the pass.
        generator: A CPU generator for `WindowShift.RANDOM`; not used by `WindowShift.CYCLE`.
        done: What was done in the pass so far, if this is the rest of it.

    Attributes:
        timesteps: The noise of each row of the current UNet call, in the units of its `timesteps` argument; none before
            it.
        strided, pooled: Whether that pair is active in the current call.
        damped: Whether the current call's noise wants noise-damped guidance.
        is_base: Whether the current call is the base evaluation of noise-damped guidance.
        stage: The stage of a relay that the current call belongs to; None at full size.
        first_noise: What `relay.Beginning` found in each row of the current call.
        sizes: The feature sizes of the current call; None if it is not of the planned size and left alone.
    """

    def __init__(self, schedule: Schedule, generator: torch.Generator | None = None, done: Done | None = None) -> None:
        self.schedule = schedule
        self.generator = generator
        self._drawn: list[list[int]] = []
        self.done = done or Done()
        self.timesteps: list[float] = []
        self.strided = self.pooled = self.damped = self.is_base = False
        self.stage: Stage | None = None
        self.first_noise: list[float] | None = None
        self.sizes: FeatureSizes | None = None

    @property
    def timestep(self) -> float:
        """The noise that the current UNet call goes by, its noisiest row's; infinite before it."""
        return max(self.timesteps, default=math.inf)

    def last_timesteps(self, count: int) -> list[float]:
        """The noise of the last rows, of which hosts have one for each picture; the call's, if it has less rows."""
        return self.timesteps[-count:] if len(self.timesteps) >= count else [self.timestep] * count

    @property
    def step(self) -> int:
        """The step of the pass that the current call belongs to, for what moves with the steps."""
        return self.schedule.step(self.timestep)

    def did(self, work: Work) -> None:
        """Notes that something is done in the current call."""
        self.done.note(work, self.timestep)

    def random_index(self, site: int, sites: int) -> int:
        """The number of a random window shift at one of so many sites in the current step, the same in all its calls.

        They are drawn step by step and site by site, as a sampler comes to them that calls the UNet once a step.
        """
        assert self.generator is not None
        while len(self._drawn) <= self.step:
            self._drawn.append([windows.random_index(self.generator) for _ in range(sites)])
        return self._drawn[self.step][site]

    def mark(self) -> Callable[[], None]:
        """What puts the current call's state back, after others have called the UNet."""
        of_the_pass = {"schedule", "generator", "_drawn", "done", "is_base"}
        state = {name: value for name, value in vars(self).items() if name not in of_the_pass}
        return lambda: vars(self).update(state)

    @contextmanager
    def base_evaluation(self) -> Generator[None, None, None]:
        """While open, UNet calls are re-dilated as noise-damped guidance's base evaluation is."""
        self.is_base = True
        try:
            yield
        finally:
            self.is_base = False


@contextmanager
def hidiffusion(unet: nn.Module, plan: Plan, run: Run) -> Generator[None, None, None]:
    """Patches `unet` as planned while the context is open.

    After it has closed, normally or by any exception, every module has the same type, attributes and hooks as
    before. A plan with nothing to do registers no hook at all.

    Args:
        unet: The UNet that `plan.unet` is the map of.
        plan: What to do.
        run: The state of this pass; one per pass.

    Raises:
        ValueError: if the plan draws random shifts and the run has no generator.
    """
    if plan.windows and plan.window_shift is WindowShift.RANDOM and run.generator is None:
        raise ValueError("random window shifts need a Run with a generator")
    strided, pooled = (run.schedule.steps_inside(pair.span) for pair in (plan.strided, plan.pooled))
    redilations = [site for site in plan.redilations if run.schedule.steps_inside(site.span)]
    staged = any(run.schedule.steps_inside(stage.span) for stage in plan.stages)
    beginning = relay.Beginning(run.schedule.levels.sigma(run.schedule.timesteps[0]), plan.unet.out_channels)
    with ExitStack() as stack:
        if plan.due(run.schedule):
            _watch_calls(stack, unet, plan, run, beginning)
        if strided:
            _stride(stack, unet, plan, run)
        if pooled:
            _pool(stack, unet, plan, run)
        if strided or pooled or staged:
            _size_upsamplers(stack, unet, plan, run)
        if staged:
            _relay(stack, unet, plan, run, beginning)
        for convolution in redilations:
            _redilate(stack, unet, run, convolution, plan.unet.seamless)
        for number, site in enumerate(plan.windows):
            _window(stack, unet, plan, run, site, number)
        yield


def _watch_calls(stack: ExitStack, unet: nn.Module, plan: Plan, run: Run, beginning: relay.Beginning) -> None:
    """Sets the run's state from the size and timesteps of each UNet call, and fits ControlNet's residuals to it.

    All that has to be known of a call's numbers is read at once: that waits until the device is done with what it has
    to do.
    """

    def watch(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        x, timesteps = args[0], args[1] if len(args) > 1 else kwargs["timesteps"]
        planned = tuple(x.shape[2:]) == plan.latent
        wanted = [timesteps.float().reshape(-1).expand(len(x))]
        found = beginning.found(x) if planned else None
        read: list[list[float]] = cast(Any, torch.stack(wanted if found is None else [*wanted, found])).tolist()
        run.timesteps, run.first_noise = read[0], None if found is None else read[1]
        run.done.note_call(run.timestep, planned=planned)
        run.strided = planned and run.schedule.inside(plan.strided.span, run.timestep)
        run.pooled = planned and run.schedule.inside(plan.pooled.span, run.timestep)
        run.damped = planned and run.schedule.inside(plan.damped, run.timestep)
        run.stage = plan.stage(run.schedule, run.timestep) if planned else None
        run.sizes = plan.sizes(strided=run.strided, pooled=run.pooled, stage=run.stage) if planned else None
        if run.sizes is None or not (run.strided or run.pooled or run.stage) or not kwargs.get("control"):
            return None
        return args, {**kwargs, "control": control.fit_residuals(kwargs["control"], run.sizes, plan.unet.seamless)}

    patching.before_forward(stack, unet, watch)


def _stride(stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
    """The strided pair's downsampler: the host's own convolution with another stride, dilation and padding."""
    name = plan.unet.inputs[plan.strided.block].down
    assert name is not None

    def attributes() -> dict[str, Any]:
        if not run.strided:
            return {}
        run.did(Work.STRIDED)
        return raunet.STRIDED_CONV

    def check(x: torch.Tensor) -> torch.Tensor:
        return kept_to(x, run.sizes.inside[plan.strided.block]) if run.strided and run.sizes else x

    patching.swap_attributes(stack, unet.get_submodule(name), attributes)
    patching.change_output(stack, unet.get_submodule(name), check)


def _pool(stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
    """The pooled pair: halves an input block's output, undone after the output block that consumes its skip."""
    undone_at = plan.unet.partner(plan.pooled.block)
    pooled = unet.get_submodule(plan.unet.inputs[plan.pooled.block].layers[-1])
    undone = unet.get_submodule(plan.unet.outputs[undone_at].layers[-1])

    def pool(x: torch.Tensor) -> torch.Tensor:
        if not run.pooled:
            return x
        run.did(Work.POOLED)
        return raunet.pool(x, plan.unet.seamless)

    def undo(x: torch.Tensor) -> torch.Tensor:
        return raunet.undo_pool(x, _skip_after(plan, run, undone_at), plan.unet.seamless) if run.pooled else x

    patching.change_output(stack, pooled, pool)
    patching.change_output(stack, undone, undo)


def _size_upsamplers(stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
    """While the sizes are others every upsampler goes straight to the size of the skip its output will meet."""

    def size(index: int, x: torch.Tensor) -> torch.Tensor:
        changed = run.strided or run.pooled or run.stage
        return raunet.upsample_to(x, _skip_after(plan, run, index)) if changed else x

    for index, block in enumerate(plan.unet.outputs):
        if block.up:
            patching.change_input(stack, unet.get_submodule(block.up), lambda x, index=index: size(index, x))


def _skip_after(plan: Plan, run: Run, output_index: int) -> Size:
    """The size of the skip that the output block after `output_index` consumes."""
    assert run.sizes is not None
    return run.sizes.skips[plan.unet.partner(output_index + 1)]


def _relay(stack: ExitStack, unet: nn.Module, plan: Plan, run: Run, beginning: relay.Beginning) -> None:
    """The UNet is asked at a smaller size where a stage wants it, and its answer is enlarged."""
    levels, start = run.schedule.levels, run.schedule.timesteps[0]
    current: relay.Call | None = None

    def scales(x: torch.Tensor, sigmas: list[float], size: Size) -> list[float]:
        if plan.over_picture:  # which is in its latents wholly, from the first one on
            return [1.0] * len(x)
        kept, left = relay.noise_kept(plan.latent, size), beginning.left(run.first_noise, sigmas)
        for row, timestep in enumerate(run.timesteps):
            if abs(timestep - start) <= levels.tolerance:
                beginning.note(x[row : row + 1])
                left[row] = beginning.most_left(sigmas[row])
        return [relay.scale(beginning.most_left(sigma), share, kept) for sigma, share in zip(sigmas, left)]

    def ask_smaller(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        nonlocal current
        current = None
        if run.stage is None:
            return None
        run.did(Work.RELAY)
        sigmas = [levels.sigma(timestep) for timestep in run.timesteps]
        x, size = args[0], run.stage.latent
        scaled = scales(x, sigmas, size)
        current = relay.Call(x, size, sigmas, scaled, plan.unet, v_prediction=plan.v_prediction)
        fewer = per_row([levels.at_sigma(sigma) for sigma in current.sigmas], x.device).flatten()
        if len(args) > 1:
            return (current.input, fewer, *args[2:]), kwargs
        return (current.input,), {**kwargs, "timesteps": fewer}

    patching.before_forward(stack, unet, ask_smaller)
    patching.change_output(stack, unet, lambda found: current.output(found) if current else found)


def _redilate(stack: ExitStack, unet: nn.Module, run: Run, site: Redilation, seamless: Axes) -> None:
    """One re-dilated convolution: its input is enlarged, its dilation swapped, its output brought back."""
    conv = unet.get_submodule(site.conv)
    assert isinstance(conv, nn.Conv2d)
    size: Size = (0, 0)
    current: redilation.Factor | None = None

    def factor() -> redilation.Factor | None:
        if run.sizes is None or not run.schedule.inside(site.span, run.timestep):
            return None
        return site.factor_at(run.step, run.schedule, base=run.is_base)

    def enlarge(x: torch.Tensor) -> torch.Tensor:
        nonlocal size, current
        size, current = (x.shape[-2], x.shape[-1]), factor()
        if current is None:
            return x
        run.did(Work.REDILATED)
        x = bilinear(x, redilation.input_size(size, current), seamless)
        if not site.dispersed:
            return x
        run.did(Work.DISPERSED)
        return dispersion.dispersed_input(x)

    def attributes() -> dict[str, Any]:
        return {} if current is None else redilation.dilated_attributes(current, reach=2 if site.dispersed else 1)

    def bring_back(x: torch.Tensor) -> torch.Tensor:
        if current is None:
            return x
        x = kept_to(x, redilation.output_size(redilation.input_size(size, current), conv.stride))
        return bilinear(x, redilation.output_size(size, conv.stride), seamless)

    patching.change_input(stack, conv, enlarge)
    patching.swap_attributes(stack, conv, attributes)
    patching.change_output(stack, conv, bring_back)


def _window(stack: ExitStack, unet: nn.Module, plan: Plan, run: Run, site: WindowSite, number: int) -> None:
    """Windows around one self-attention: its input is partitioned, its output put back together."""
    current: tuple[Size, Size] | None = None

    def partition(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        nonlocal current
        current = None
        if run.sizes is None or (run.stage and run.stage.native):
            return None
        x, size = args[0], plan.window_size(site, run.sizes)
        # Another length or another context is not plain self-attention over the picture (reference ControlNet,
        # token merging): that call stays as it is.
        others = (*args[1:], *kwargs.values())
        if x.shape[1] != size[0] * size[1] or any(isinstance(o, torch.Tensor) and o is not x for o in others):
            return None
        if plan.window_shift is WindowShift.CYCLE:
            index = windows.cycle_index(run.step, number)
        else:
            index = run.random_index(number, len(plan.windows))
        current = size, windows.window_shift(size, index)
        cut = windows.window_partition(x, *current, plan.unet.seamless)
        run.did(Work.WINDOWS)
        if windows.even_size(size) != size:
            run.did(Work.ODD_WINDOWS)
        return tuple(cut if o is x else o for o in args), {name: cut if o is x else o for name, o in kwargs.items()}

    patching.before_forward(stack, unet.get_submodule(site.attention), partition)
    patching.change_output(
        stack,
        unet.get_submodule(site.attention),
        lambda x: windows.window_reverse(x, *current, plan.unet.seamless) if current else x,
    )
