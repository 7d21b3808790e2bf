"""The counted multiplications against those that PyTorch counts while the UNet runs."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from unets import inputs, shared_unet, uniform_timesteps

from hidiffusion_ext.core import Family, Method, Options, Preset, Run, Schedule, hidiffusion, make_plan, map_unet
from hidiffusion_ext.core.cost import Cost, count, speed_up
from ldm_unet import SD15, SD21, SDXL, ldm_unet

attention = pytest.importorskip("torch.nn.attention", reason="PyTorch before 2.3 cannot count like this")

STEPS = 10
LOOKED_AT = (0, 3, 9)
LATENT = (24, 32)


def operations(family: Family, timestep: float = 999.0) -> int:
    """Those of a call, counted by PyTorch."""
    x, context = inputs(LATENT)
    with (
        torch.no_grad(),
        attention.sdpa_kernel(attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        shared_unet(family)(x, torch.tensor([timestep]), context=context)
    return counter.get_total_flops()


own_operations = lru_cache(operations)
"""Those of a UNet that nothing is changed in."""


def shares(family: Family, options: Options) -> tuple[list[float], list[float]]:
    """Some steps' shares of the unchanged UNet's operations: counted from the plan, and by PyTorch."""
    unet, timesteps = shared_unet(family), uniform_timesteps(STEPS)
    plan, direct = make_plan(options, map_unet(unet), LATENT), own_operations(family)
    with hidiffusion(unet, plan, Run(Schedule(timesteps))):
        seen = [operations(family, timesteps[step]) / direct for step in LOOKED_AT]
    return [count(plan, Schedule(timesteps)).shares[step] for step in LOOKED_AT], seen


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(
    "options",
    [
        Options(native_size=96),
        Options(native_size=48),
        Options(native_size=96, rau_net=False),
        Options(native_size=96, msw_msa=False),
        Options(native_size=96, method=Method.SCALECRAFTER, damped_guidance=False),
        Options(native_size=48, method=Method.SCALECRAFTER, dispersion=True, damped_guidance=False),
    ],
)
def test_counts_are_what_pytorch_counts(family: Family, options: Options) -> None:
    counted, seen = shares(family, options)
    assert counted == pytest.approx(seen, rel=0.12)


def test_damped_guidance_takes_a_third_row_for_two() -> None:
    unet_map = map_unet(shared_unet())
    options = Options(method=Method.SCALECRAFTER, preset=Preset.X4, native_size=64, msw_msa=False)
    shares = count(make_plan(options, unet_map, (32, 32)), Schedule(uniform_timesteps(STEPS))).shares
    assert shares[0] == pytest.approx(1.5)
    assert shares[-1] == 1


def test_nothing_planned_costs_nothing_more() -> None:
    plan = make_plan(Options(), map_unet(shared_unet()), (64, 64))
    assert count(plan, Schedule(uniform_timesteps(3))).shares == (1, 1, 1)


def test_a_job_is_as_fast_as_its_passes_together() -> None:
    slow, fast = Cost(10, (1, 1)), Cost(30, (0.5, 0.5))
    assert speed_up(slow) == 1
    assert speed_up(fast) == 2
    assert speed_up(slow, fast) == 80 / 50


ROOT = Path(__file__).parents[2]
MODELS = {"SD1.5": (SD15, 512), "SD2.1 (768)": (SD21, 768), "SDXL": (SDXL, 1024)}
"""What the tables of work call them: (shape, native size)."""


def rows_of(document: Path) -> list[tuple[str, str, str, str]]:
    """(model, sizes, what happens, how many times less work)"""
    table = document.read_text(encoding="utf-8").partition("| less work |")[2].partition("\n\n")[0]
    rows, model = [], ""
    for line in table.splitlines()[2:]:
        name, sizes, happens, less = (cell.strip() for cell in line.strip("|").split("|"))
        model = name or model
        rows.append((model, sizes, happens, less))
    return rows


def test_the_tables_of_work_are_what_is_counted() -> None:
    with torch.device("meta"):
        maps = {name: map_unet(ldm_unet(shape)) for name, (shape, _) in MODELS.items()}
    first, every = rows_of(ROOT / "README.md"), rows_of(ROOT / "docs/performance.md")
    assert first
    assert {model for model, *_ in every} == MODELS.keys()
    for model, sizes, happens, less in first + every:
        found = []
        for width, height in re.findall(r"(\d+)x(\d+)", sizes):
            plan = make_plan(Options(native_size=MODELS[model][1]), maps[model], (int(height) // 8, int(width) // 8))
            assert happens.startswith(f"preset {plan.preset.value}" if plan.active else "nothing"), (model, sizes)
            found.append(f"{speed_up(count(plan, Schedule(uniform_timesteps(20)))):.1f}")
        stated = re.findall(r"[\d.]+", less) or ["1.0"]
        assert [min(found), max(found)] == [stated[0], stated[-1]], (model, sizes, found)
