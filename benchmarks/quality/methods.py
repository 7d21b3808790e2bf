"""What is compared: each method is a context manager around one batch's sampling."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from hidiffusion_ext.core import Options, Preset, Run, Schedule, UNetMap, WindowShift, hidiffusion, make_plan

from .deep_shrink import deep_shrink
from .shifts import INDEPENDENT, LOW_DISCREPANCY, Policy, shifts_by

NATIVE = 128
"""Pixels per side the demo model was trained at."""


@dataclass(frozen=True)
class Job:
    """One batch to be sampled.

    Attributes:
        unet, unet_map: The model's UNet and its sites.
        latent: Latent (height, width).
        timesteps: One per step, first step first.
        seed: For methods that draw.
    """

    unet: nn.Module
    unet_map: UNetMap
    latent: tuple[int, int]
    timesteps: list[float]
    seed: int


Method = Callable[[Job], AbstractContextManager[None]]


def _direct(job: Job) -> AbstractContextManager[None]:
    return nullcontext()


def _deep_shrink(job: Job) -> AbstractContextManager[None]:
    return deep_shrink(job.unet, job.unet_map, Schedule(job.timesteps))


def _hidiffusion(policy: Policy | None = None, **options: object) -> Method:
    """HiDiffusion with these options, through the public core; with another shift policy if one is given."""

    @contextmanager
    def method(job: Job) -> Generator[None, None, None]:
        wanted = Options(native_size=NATIVE, **options)  # type: ignore[arg-type]
        plan = make_plan(wanted, job.unet_map, job.latent)
        run = Run(Schedule(job.timesteps), torch.Generator().manual_seed(job.seed))
        with shifts_by(policy) if policy else nullcontext(), hidiffusion(job.unet, plan, run):
            yield

    return method


def _custom(t1: float, t2: float = 0.0) -> Method:
    return _hidiffusion(preset=Preset.CUSTOM, t1=t1, t2=t2)


METHODS: dict[str, Method] = {
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
    "Deep Shrink": _deep_shrink,
}
