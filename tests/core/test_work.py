"""The work of a patched call, counted exactly: multiplications, copies, and nothing that is computed for nothing."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import pytest
import torch
from plans import IN_A_PASS, pairs, redilations
from tensor_memory import TensorMemory
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from unets import inputs, shared_unet, uniform_timesteps

from hidiffusion_ext.core import Family, Method, Options, Plan, Run, Schedule, hidiffusion, make_plan, map_unet
from hidiffusion_ext.core.parts.windows import MSWMSA
from ldm_unet import LdmUNet

attention = pytest.importorskip("torch.nn.attention", reason="PyTorch before 2.3 cannot count like this")

LATENT, HALF = (32, 32), (16, 16)
NATIVE = 128
STEPS = 10
LOOKED_AT = (0, 3, 9)
READS_THE_TIMESTEP = {"aten::stack": 1}
"""All that is read of a call."""


class Operations(TorchDispatchMode):
    """Counts the operations that make new tensors, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and func._schema.name != "aten::_unsafe_view":
            self.counts[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


def patched(unet: LdmUNet, plan: Plan) -> AbstractContextManager[None]:
    return hidiffusion(unet, plan, Run(Schedule(uniform_timesteps(STEPS))))


def plan_of(unet: LdmUNet, **options: Any) -> Plan:
    return make_plan(Options(native_size=NATIVE, **options), map_unet(unet), LATENT)


@torch.no_grad()
def operations(
    unet: LdmUNet, patch: AbstractContextManager[None], batch: int, layout: torch.memory_format
) -> Counter[str]:
    x, context = inputs(LATENT, batch=batch)
    x = x.contiguous(memory_format=layout)
    t = torch.tensor(uniform_timesteps(STEPS)[:1])
    with patch:
        unet(x, t, context=context)  # the tables of the windows are made once
        with Operations() as counted:
            unet(x, t, context=context)
    return counted.counts


@torch.no_grad()
def multiplications(unet: LdmUNet, latent: tuple[int, int], patch: AbstractContextManager[None]) -> dict[str, int]:
    """Floating-point operations by module, the whole UNet's under ''."""
    x, context = inputs(latent)
    with patch, attention.sdpa_kernel(attention.SDPBackend.MATH), FlopCounterMode(display=False, depth=None) as counter:
        unet(x, torch.tensor([999.0]), context=context)
    root = type(unet).__name__
    return {
        name.removeprefix(root).removeprefix("."): sum(ops.values()) for name, ops in counter.get_flop_counts().items()
    }


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", Family)
def test_windows_cost_one_copy_in_and_one_out(family: Family, batch: int, layout: torch.memory_format) -> None:
    unet = shared_unet(family)
    plan = plan_of(unet, rau_net=False)
    before = operations(unet, nullcontext(), batch, layout)
    after = operations(unet, patched(unet, plan), batch, layout)
    added = {name: after[name] - before[name] for name in after | before if after[name] != before[name]}
    assert added == {"aten::index_select": 2 * len(plan.part(MSWMSA).sites), **READS_THE_TIMESTEP}


@pytest.mark.parametrize("family", Family)
def test_windows_take_three_quarters_off_the_comparisons(family: Family) -> None:
    unet = shared_unet(family)
    plan = plan_of(unet, rau_net=False)
    before, after = (multiplications(unet, LATENT, patch)[""] for patch in (nullcontext(), patched(unet, plan)))
    saved = 0
    for site in plan.part(MSWMSA).sites:
        tokens = (
            LATENT[0] * LATENT[1] // 4 ** plan.unet.level(plan.unet.partner(site.block) if site.output else site.block)
        )
        channels = unet.get_submodule(site.name).to_q.out_features
        saved += 4 * tokens**2 * channels * 3 // 4  # queries with keys and weights with values, 2 operations each
    assert before - after == saved


def test_raunet_adds_one_resize_and_works_below_as_at_half_the_size() -> None:
    unet = shared_unet()
    plan = plan_of(unet, msw_msa=False)
    before = operations(unet, nullcontext(), 1, torch.contiguous_format)
    after = operations(unet, patched(unet, plan), 1, torch.contiguous_format)
    added = {name: after[name] - before[name] for name in after | before if after[name] != before[name]}
    assert added == {"aten::upsample_nearest2d": 1, **READS_THE_TIMESTEP}

    full, half = (multiplications(unet, size, nullcontext()) for size in (LATENT, HALF))
    at_the_finest = {i for i in range(len(plan.unet.inputs)) if plan.unet.level(i) == 0}
    expected = full["time_embed"] + full["out"] + half["middle_block"]
    for index in range(len(plan.unet.inputs)):
        works_at = full if index in at_the_finest else half
        expected += works_at[f"input_blocks.{index}"] + works_at[f"output_blocks.{plan.unet.partner(index)}"]
    brings_back = plan.unet.outputs[
        plan.unet.partner(pairs(plan)[0].block)
    ].up  # in a coarser block, at the finest size
    assert brings_back is not None
    expected += full[brings_back] - half[brings_back]
    assert multiplications(unet, LATENT, patched(unet, plan))[""] == expected


@torch.no_grad()
def peak_bytes(unet: LdmUNet, latent: tuple[int, int], time: float = 999.0) -> int:
    x, context = inputs(latent)
    with TensorMemory() as memory:
        unet(x, torch.tensor([time]), context=context)
    return memory.peak


own_peak_bytes = lru_cache(peak_bytes)
"""Those of a UNet that nothing is changed in."""


@pytest.mark.parametrize("latent", [pytest.param(HALF, id="2x"), pytest.param(LATENT, id="4x", marks=pytest.mark.slow)])
@pytest.mark.parametrize("msw_msa", [True, False])
@pytest.mark.parametrize("method", IN_A_PASS)
@pytest.mark.parametrize("family", Family)
def test_no_call_needs_more_memory_than_the_unpatched_one(
    family: Family, method: Method, msw_msa: bool, latent: tuple[int, int]
) -> None:
    unet = shared_unet(family)
    wanted = Options(native_size=NATIVE // 2, method=method, msw_msa=msw_msa, damped_guidance=False, dispersion=True)
    plan = make_plan(wanted, map_unet(unet), latent)
    vanilla, timesteps = own_peak_bytes(unet, latent), uniform_timesteps(STEPS)
    with patched(unet, plan):
        peak_bytes(unet, latent)  # the tables of the windows are made once
        assert max(peak_bytes(unet, latent, timesteps[step]) for step in LOOKED_AT) <= vanilla


def test_nothing_is_added_where_there_is_nothing_to_do() -> None:
    unet = shared_unet()
    plan = make_plan(Options(native_size=512), map_unet(unet), LATENT)
    layout = torch.contiguous_format
    assert operations(unet, patched(unet, plan), 1, layout) == operations(unet, nullcontext(), 1, layout)


def test_redilation_adds_two_resizes_per_convolution_at_most() -> None:
    unet = shared_unet()
    plan = plan_of(unet, method=Method.SCALECRAFTER, msw_msa=False, damped_guidance=False)
    before = operations(unet, nullcontext(), 1, torch.contiguous_format)
    after = operations(unet, patched(unet, plan), 1, torch.contiguous_format)
    added = {name: after[name] - before[name] for name in after | before if after[name] != before[name]}
    resizes = added.pop("aten::upsample_bilinear2d", 0)
    assert resizes <= 2 * len(redilations(plan))
    assert added == READS_THE_TIMESTEP
