"""The same weights in the official implementation (PyPI `hidiffusion`) give the same output at every step.

The official code picks its preset by the size it sees or by the pipeline's name, and counts UNet calls. Where a
preset needs a latent too large for a test, its numbers are put in the place of the smaller size's.
"""

from __future__ import annotations

import dataclasses
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


SIZES = [(32, 32), (32, 48), (64, 32), (33, 41), (40, 56)]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    ("latent", "steps"),
    [*((size, 5) for size in SIZES), ((32, 32), 10), ((16, 16), 50)],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else f"{value}steps",
)
def test_every_step_equals_the_official_code(
    case: Case, latent: tuple[int, int], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in case.official_constants.items():
        monkeypatch.setattr(official, name, value)
    compare(case, latent, range(steps), steps)


@pytest.mark.slow
@pytest.mark.parametrize("latent", [(90, 160), (152, 104)])
@pytest.mark.parametrize("case", [CASES["SD1.5 2x"], CASES["SDXL 2x"]], ids=["SD1.5 2x", "SDXL 2x"])
def test_large_sizes_that_are_not_divisible_by_64(case: Case, latent: tuple[int, int]) -> None:
    compare(case, latent, range(2), 3)


def compare(case: Case, latent: tuple[int, int], steps: range, total: int) -> None:
    """Runs both implementations over the steps, each with a fresh latent, and compares outputs of order 1."""
    depth = 2 if case.family is Family.SDXL else 1
    unet = tiny_unet(case.family, in_channels=case.in_channels, depth=depth, deep=depth, sized=True)
    theirs = diffusers_unet(unet, tiny_shape(case.family, depth, depth), case.in_channels)
    official.apply_hidiffusion(DiffusionPipeline(theirs, case.official_name, total))  # type: ignore[arg-type]
    theirs.info["is_playground"] = case.situation.playground  # the official code reads it from the pipeline's name

    plan = make_plan(case.options, map_unet(unet), latent, case.situation)
    timesteps = uniform_timesteps(total)
    generator = torch.Generator()
    with torch.inference_mode(), hidiffusion(unet, plan, Run(Schedule(timesteps), generator)):
        for step in steps:
            x, context = inputs(latent, in_channels=case.in_channels, seed=step)
            t = torch.tensor([timesteps[step]])
            generator.manual_seed(step)
            ours = unet(x, t, context=context)
            torch.manual_seed(step)
            expected = theirs(x, t, encoder_hidden_states=context).sample
            assert 0.1 < float(expected.std()) < 10
            difference = float((ours - expected).abs().max())
            assert difference <= TOLERANCE, f"step {step}: {difference:.2e}"
