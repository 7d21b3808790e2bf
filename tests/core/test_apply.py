"""The context manager: what it changes while open, and that nothing of it stays."""

from __future__ import annotations

import copy
from contextlib import ExitStack

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from leftovers import STEPS, UNETS, call
from snapshot import snapshot
from torch import nn
from unets import inputs, shared_unet, tiny_unet, uniform_timesteps

from hidiffusion_ext.core import (
    Family,
    Options,
    Plan,
    Run,
    Schedule,
    WindowShift,
    hidiffusion,
    make_plan,
    map_unet,
    patching,
)


def paper_plan(unet: nn.Module, latent: tuple[int, int], **options: object) -> Plan:
    return make_plan(Options.from_mapping({"native_size": 8, "preset": "4x", **options}), map_unet(unet), latent)


def new_run(seed: int = 0) -> Run:
    return Run(Schedule(uniform_timesteps(STEPS)), torch.Generator().manual_seed(seed))


sizes = st.tuples(st.integers(16, 28), st.integers(16, 28))


@settings(max_examples=30)
@given(st.sampled_from(list(UNETS)), sizes, st.sampled_from(["2x", "4x"]), st.integers(0, STEPS - 1))
def test_any_size_runs_and_leaves_everything_as_it_was(
    family: Family, latent: tuple[int, int], preset: str, step: int
) -> None:
    unet = UNETS[family]
    before, expected = snapshot(unet), call(unet, latent, step)
    with hidiffusion(unet, paper_plan(unet, latent, preset=preset), new_run()):
        patched = call(unet, latent, step)
    assert patched.shape == expected.shape
    assert patched.isfinite().all()
    assert not torch.equal(patched, expected)
    assert snapshot(unet) == before
    assert torch.equal(call(unet, latent, step), expected)


@pytest.mark.parametrize("family", UNETS)
def test_plain_ldm_upsamplers_work_at_sizes_they_could_not_halve_evenly(family: Family) -> None:
    unet = shared_unet(family)
    latent = (72, 40)  # divisible by 8, but not once a level shrinks by 4
    with hidiffusion(unet, paper_plan(unet, latent, preset="2x"), new_run()):
        assert call(unet, latent).shape[-2:] == latent


def test_a_call_that_failed_can_be_repeated_inside_the_context() -> None:
    unet = UNETS[Family.SD1]
    conv = unet.input_blocks[3][0].op
    with hidiffusion(unet, paper_plan(unet, (16, 16)), new_run()):
        expected = call(unet, (16, 16))
        late = call(unet, (16, 16), step=9)
        handle = unet.input_blocks[3].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call(unet, (16, 16))
        handle.remove()
        assert conv.stride == (2, 2)
        assert torch.equal(call(unet, (16, 16)), expected)
        assert torch.equal(call(unet, (16, 16), step=9), late)


def hooks(unet: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules())


def test_nothing_to_do_means_no_hook_at_all() -> None:
    unet = UNETS[Family.SD1]
    idle = make_plan(Options(), map_unet(unet), (64, 64))
    too_short = paper_plan(unet, (64, 64), msw_msa=False, preset="2x", t1=0.05)
    for plan in (idle, too_short):
        with hidiffusion(unet, plan, new_run()):
            assert hooks(unet) == 0


def test_outside_their_steps_the_pairs_change_nothing() -> None:
    for unet in UNETS.values():
        plan = paper_plan(unet, (17, 21), msw_msa=False, preset="2x")
        with hidiffusion(unet, plan, new_run()):
            outputs = [call(unet, (17, 21), step) for step in range(STEPS)]
        changed = [not torch.equal(out, call(unet, (17, 21), step)) for step, out in enumerate(outputs)]
        assert changed == [step < 4 for step in range(STEPS)]


def test_a_call_at_another_size_than_planned_is_left_alone() -> None:
    unet = UNETS[Family.SD1]
    planned, tile = call(unet, (32, 32)), call(unet, (16, 16))
    with hidiffusion(unet, paper_plan(unet, (32, 32)), new_run()):
        assert torch.equal(call(unet, (16, 16)), tile)
        assert not torch.equal(call(unet, (32, 32)), planned)
        assert torch.equal(call(unet, (16, 16)), tile)


def test_attention_to_something_else_than_the_picture_is_left_alone() -> None:
    unet = UNETS[Family.SD1]
    attention = unet.input_blocks[1][1].transformer_blocks[0].attn1
    x = torch.randn(1, 256, 32, generator=torch.Generator().manual_seed(0))
    expected = attention(x, context=x), attention(x[:, :100])
    with hidiffusion(unet, paper_plan(unet, (16, 16)), new_run()):
        call(unet, (16, 16))
        assert not torch.equal(attention(x), expected[0])
        assert torch.equal(attention(x, context=x.clone()), expected[0])
        assert torch.equal(attention(x, x.clone()), expected[0])
        windowed = attention(x)
        assert torch.equal(attention(x, context=x), windowed)  # the input itself, handed over, is self-attention
        assert torch.equal(attention(x, x), windowed)
        assert torch.equal(attention(x[:, :100]), expected[1])


def test_circular_convolutions_stay_circular() -> None:
    unet = tiny_unet(sized=True)
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
    conv = unet.input_blocks[3][0].op
    seen: list[torch.Tensor] = []
    conv.register_forward_hook(lambda module, args, output: seen.extend((args[0], output)))
    with hidiffusion(unet, paper_plan(unet, (32, 32), msw_msa=False, preset="2x"), new_run()):
        call(unet, (32, 32))
    padded = nn.functional.pad(seen[0], (2, 2, 2, 2), mode="circular")
    expected = nn.functional.conv2d(padded, conv.weight, conv.bias, stride=4, dilation=2)
    assert torch.equal(seen[1], expected)
    assert tuple(conv._reversed_padding_repeated_twice) == (1, 1, 1, 1)


def test_the_global_random_state_is_neither_read_nor_changed() -> None:
    unet = UNETS[Family.SD1]
    for shift in WindowShift:
        plan = paper_plan(unet, (32, 32), window_shift=shift.value)
        results = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            state = torch.random.get_rng_state()
            with hidiffusion(unet, plan, new_run(seed=5)):
                results.append([call(unet, (32, 32), step) for step in range(3)])
            assert torch.equal(state, torch.random.get_rng_state())
        assert all(torch.equal(a, b) for a, b in zip(*results))


def test_random_shifts_do_not_depend_on_how_many_calls_a_step_takes() -> None:
    unet = shared_unet()
    plan = make_plan(Options(native_size=64, window_shift=WindowShift.RANDOM), map_unet(unet), (16, 24))
    x, context = inputs((16, 24))
    timesteps = uniform_timesteps(4)

    def called(steps: list[int]) -> list[torch.Tensor]:
        run = Run(Schedule(timesteps), torch.Generator().manual_seed(1))
        with torch.inference_mode(), hidiffusion(unet, plan, run):
            return [unet(x, torch.tensor([timesteps[step]]), context=context) for step in steps]

    once = called([0, 1, 2, 3])
    again = called([2, 0, 0, 3, 1, 1])
    assert all(torch.equal(again[number], once[step]) for number, step in enumerate([2, 0, 0, 3, 1, 1]))


def test_random_shifts_need_a_generator() -> None:
    unet = UNETS[Family.SD1]
    plan = paper_plan(unet, (32, 32), window_shift="Random")
    with pytest.raises(ValueError, match="generator"), hidiffusion(unet, plan, Run(Schedule([999.0]))):
        pass


def computes_in(dtype: torch.dtype) -> bool:
    """Whether this PyTorch multiplies numbers of that kind on the CPU; 2.1 does not know how to with float16."""
    try:
        return bool(torch.ones(1, 1, dtype=dtype).mm(torch.ones(1, 1, dtype=dtype)))
    except RuntimeError:
        return False


@pytest.mark.parametrize("dtype", filter(computes_in, [torch.bfloat16, torch.float16]))
@pytest.mark.parametrize("family", [Family.SD1, Family.SDXL])
def test_other_precisions_give_the_same_picture_up_to_rounding(family: Family, dtype: torch.dtype) -> None:
    unet = UNETS[family]
    latent = (33, 40)
    plan = paper_plan(unet, latent)
    x, context = inputs(latent)
    with torch.inference_mode(), hidiffusion(unet, plan, new_run()):
        expected = unet(x, torch.tensor([999.0]), context=context)
    converted = copy.deepcopy(unet).to(dtype)
    converted.dtype = dtype
    converted.time_embed.register_forward_pre_hook(lambda module, args: (args[0].to(dtype),))
    for module in converted.modules():
        if isinstance(module, nn.GroupNorm):  # ldm's computes in float32
            module.float()
    with torch.inference_mode(), hidiffusion(converted, plan, new_run()):
        result = converted(x.to(dtype), torch.tensor([999.0]), context=context.to(dtype))
    assert result.dtype == dtype
    error = float((result.float() - expected).norm() / expected.norm())
    assert error < 20 * torch.finfo(dtype).eps + 1e-5


@pytest.mark.parametrize("theirs_first", [True, False])
@pytest.mark.parametrize("removed_while_open", [True, False])
def test_hooks_of_others_on_the_same_modules_stay_theirs(theirs_first: bool, removed_while_open: bool) -> None:
    unet = UNETS[Family.SD1]
    before, calls = snapshot(unet), 0

    def note(*_: object) -> None:
        nonlocal calls
        calls += 1

    def hook_everything(stack: ExitStack) -> None:
        for module in unet.modules():
            stack.callback(module.register_forward_pre_hook(note).remove)
            stack.callback(module.register_forward_hook(note).remove)

    with ExitStack() as theirs:
        if theirs_first:
            hook_everything(theirs)
        with hidiffusion(unet, paper_plan(unet, (16, 16)), new_run()):
            if not theirs_first:
                hook_everything(theirs)
            call(unet, (16, 16))
            seen, calls = calls, 0
            if removed_while_open:
                theirs.close()
        call(unet, (16, 16))
        assert seen > 0
        assert calls == (0 if removed_while_open else seen)
    assert snapshot(unet) == before


def test_swapped_attributes_are_back_after_the_forward_even_if_it_raises() -> None:
    conv = nn.Conv2d(1, 1, 3)
    with patching.ExitStack() as stack:
        patching.swap_attributes(stack, conv, lambda: {"stride": (2, 2)})
        assert conv(torch.zeros(1, 1, 9, 9)).shape[-1] == 4
        assert conv.stride == (1, 1)
        with pytest.raises(RuntimeError):
            conv(torch.zeros(1, 2, 9, 9))
        assert conv.stride == (1, 1)
    assert vars(conv)["stride"] == (1, 1)
