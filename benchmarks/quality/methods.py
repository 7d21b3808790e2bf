"""What is compared: each method gives the patch that is around one batch's sampling."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext

from demo_model import NATIVE, DemoModel, Patch, untouched
from hidiffusion_ext.core import Method, Options, Preset, Run, Schedule, WindowShift, make_plan
from hidiffusion_ext.core.plan import CELL
from hidiffusion_ext.core.windows import Size

from .deep_shrink import deep_shrink
from .shifts import INDEPENDENT, LOW_DISCREPANCY, Policy, shifts_by

MakePatch = Callable[[DemoModel, Size, int], Patch]
"""`(model, (height, width) in pixels, seed for what draws) -> patch`"""


def _direct(model: DemoModel, size: Size, seed: int) -> Patch:
    return untouched


def _deep_shrink(model: DemoModel, size: Size, seed: int) -> Patch:
    return lambda timesteps: deep_shrink(model.unet, model.unet_map, Schedule(timesteps))


def _hidiffusion(policy: Policy | None = None, **options: object) -> MakePatch:
    """The project's own methods through the public core; with another shift policy if one is given."""

    def method(model: DemoModel, size: Size, seed: int) -> Patch:
        wanted = Options(native_size=NATIVE, **options)  # type: ignore[arg-type]
        plan = make_plan(wanted, model.unet_map, (size[0] // CELL, size[1] // CELL))

        @contextmanager
        def patch(timesteps: Sequence[float]) -> Generator[Run | None]:
            with shifts_by(policy) if policy else nullcontext(), model.patched(plan, seed)(timesteps) as run:
                yield run

        return patch

    return method


def _custom(t1: float, t2: float = 0.0) -> MakePatch:
    return _hidiffusion(preset=Preset.CUSTOM, t1=t1, t2=t2)


def _scalecrafter(**options: object) -> MakePatch:
    return _hidiffusion(**{"method": Method.SCALECRAFTER, "msw_msa": False, "damped_guidance": False, **options})


METHODS: dict[str, MakePatch] = {
    "direct": _direct,
    "RAU-Net only": _hidiffusion(msw_msa=False),
    "MSW-MSA only": _hidiffusion(rau_net=False),
    "HiDiffusion": _hidiffusion(),
    "HiDiffusion T1 0.2": _custom(0.2),
    "HiDiffusion T1 0.4": _custom(0.4),
    "HiDiffusion T1 0.6": _custom(0.6),
    "HiDiffusion T1 0.8": _custom(0.8),
    "HiDiffusion T1 0.4 T2 0.2": _custom(0.4, 0.2),
    "HiDiffusion T1 0.7 T2 0.3": _custom(0.7, 0.3),
    "HiDiffusion, random shift": _hidiffusion(window_shift=WindowShift.RANDOM),
    "HiDiffusion, independent shifts": _hidiffusion(INDEPENDENT),
    "HiDiffusion, low-discrepancy shift": _hidiffusion(LOW_DISCREPANCY),
    "ScaleCrafter": _scalecrafter(),
    "ScaleCrafter + dispersion": _scalecrafter(preset=Preset.X4, dispersion=True),
    "ScaleCrafter + damped guidance": _scalecrafter(preset=Preset.X4, damped_guidance=True),
    "ScaleCrafter + MSW-MSA": _scalecrafter(msw_msa=True),
    "Deep Shrink": _deep_shrink,
}
"""Dispersion and damped guidance belong to the 4x preset, which is used at every size then."""
