"""Cases of the official implementation (PyPI `hidiffusion`), and the comparison of a pass of ours with one of its.

The official code picks its preset by the size it sees or by the pipeline's name, and counts UNet calls. Where a
preset needs a latent too large for a test, its numbers are put in the place of the smaller size's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import hidiffusion.hidiffusion as official
import pytest
import torch
from unets import inputs, tiny_shape, tiny_unet, uniform_timesteps

from hidiffusion_ext.core import (
    Family,
    Options,
    Preset,
    Run,
    Schedule,
    Situation,
    WindowShift,
    hidiffusion,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.parts.windows import MSWMSA
from official_hidiffusion import NAMES, DiffusionPipeline, diffusers_unet

TOLERANCE = 1e-4
XL_BASE = NAMES[Family.SDXL]
XL_INPAINTING = "diffusers/stable-diffusion-xl-1.0-inpainting-0.1"


@dataclass(frozen=True)
class Case:
    """One preset: how the official code is brought to it and how ours is."""

    family: Family
    official_name: str
    options: Options
    situation: Situation = Situation()
    in_channels: int = 4
    official_constants: dict = field(default_factory=dict)


PAPER = Options(native_size=64, preset=Preset.X2, window_shift=WindowShift.RANDOM)
CASES = {
    "SD1.5 2x": Case(Family.SD1, NAMES[Family.SD1], PAPER),
    "SD1.5 4x": Case(
        Family.SD1,
        NAMES[Family.SD1],
        dataclasses.replace(PAPER, preset=Preset.X4),
        official_constants={"switching_threshold_ratio_dict": {"sd15_1024": {"T1_ratio": 0.7, "T2_ratio": 0.3}}},
    ),
    "SD2.1 2x": Case(Family.SD2, NAMES[Family.SD2], PAPER),
    "SDXL 2x": Case(Family.SDXL, XL_BASE, PAPER),
    "SDXL 4x": Case(
        Family.SDXL,
        XL_BASE,
        dataclasses.replace(PAPER, preset=Preset.X4),
        official_constants={
            "switching_threshold_ratio_dict": {"sdxl_2048": {"T1_ratio": 0.7, "T2_ratio": 0.3}},
            "is_aggressive_raunet": False,
        },
    ),
    "SDXL-Turbo": Case(Family.SDXL, "stabilityai/sdxl-turbo", dataclasses.replace(PAPER, preset=Preset.TURBO)),
    "SDXL inpainting": Case(Family.SDXL, XL_INPAINTING, PAPER, in_channels=9),
    "Playground": Case(Family.SDXL, XL_BASE, PAPER, situation=Situation(playground=True)),
}


def largest_difference(
    case: Case, latent: tuple[int, int], steps: Sequence[int], total: int, device: str = "cpu"
) -> float:
    """Runs both implementations over the steps, each with a fresh latent, and compares outputs of order 1."""
    depth = 2 if case.family is Family.SDXL else 1
    unet = tiny_unet(case.family, in_channels=case.in_channels, depth=depth, deep=depth, sized=True)
    theirs = diffusers_unet(unet, tiny_shape(case.family, depth, depth), case.in_channels).to(device)
    unet.to(device)
    plan = make_plan(case.options, map_unet(unet), latent, case.situation)
    timesteps = uniform_timesteps(total)
    generator = torch.Generator()
    largest = 0.0
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        for name, value in case.official_constants.items():
            patch.setattr(official, name, value)
        official.apply_hidiffusion(DiffusionPipeline(theirs, case.official_name, total))  # type: ignore[arg-type]
        theirs.info["is_playground"] = case.situation.playground  # the official code reads it from the pipeline's name
        run = Run(Schedule(timesteps), generator)
        with hidiffusion(unet, plan, run):
            for step, before in zip(steps, [-1, *steps]):
                if step != before + 1:
                    _count_to(theirs, step)
                    run.timesteps = [timesteps[step - 1]]
                    plan.part(MSWMSA).index(0, run)  # the steps that are left out have drawn theirs
                x, context = (each.to(device) for each in inputs(latent, in_channels=case.in_channels, seed=step))
                t = torch.tensor([timesteps[step]], device=device)
                generator.manual_seed(step)
                ours = unet(x, t, context=context)
                torch.manual_seed(step)
                expected = theirs(x, t, encoder_hidden_states=context).sample
                assert 0.1 < float(expected.std()) < 10
                largest = max(largest, float((ours - expected).abs().max()))
    return largest


def _count_to(theirs: torch.nn.Module, step: int) -> None:
    """Leaves out steps: the official code counts calls in every module it has patched."""
    for module in theirs.modules():
        if hasattr(module, "timestep"):
            module.timestep = step  # type: ignore[assignment]
