"""Other programs that change the same modules: recognised, left in peace, and none of theirs is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import tomesd
import torch
from torch import nn
from unets import inputs, tiny_unet, uniform_timesteps

from hidiffusion_ext.core import Family, Method, Options, Run, Schedule, Task, hidiffusion, make_plan, map_unet
from hidiffusion_ext.hosts.neighbours import method_conflict, windows_conflict
from ldm_unet import LdmUNet

LATENT = (16, 24)


def model_of(unet: LdmUNet) -> nn.Module:
    """A Stable Diffusion model as tomesd looks at it."""
    wrapper, model = nn.Module(), nn.Module()
    wrapper.diffusion_model = unet
    model.model = wrapper
    return model


def merge_tokens(unet: LdmUNet, **settings: Any) -> None:
    tomesd.apply_patch(model_of(unet), **settings)


def finest_attention(unet: LdmUNet) -> Any:
    return unet.input_blocks[1][1].transformer_blocks[0].attn1


def hypertile(unet: LdmUNet, enabled: bool) -> None:
    """What A1111's built-in HyperTile leaves: its settings, and a forward that attends within tiles while it is on."""
    attention = finest_attention(unet)
    settings = SimpleNamespace(enabled=enabled, forward=attention.forward)

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not settings.enabled:
            return settings.forward(x, *args, **kwargs)
        count, length, width = x.shape
        return settings.forward(x.reshape(count * 2, length // 2, width)).reshape(count, length, width)

    setattr(attention, "__webui_hypertile_params", settings)
    attention.forward = forward


def merge_tokens_no_more(unet: LdmUNet) -> None:
    merge_tokens(unet, ratio=0.5)
    tomesd.remove_patch(model_of(unet))


def control_lllite(unet: LdmUNet, models: list[object]) -> None:
    """What ControlLLLite does to a projection: adds a picture of all H*W tokens."""
    projection = finest_attention(unet).to_q
    original = projection.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        return original(x + torch.ones(1, LATENT[0] * LATENT[1], 1)) if models else original(x)

    projection.lllite_list = models
    projection.forward = forward


def reference(unet: LdmUNet, at_work: bool = True) -> None:
    """What sd-webui-controlnet does in reference mode: a forward for the UNet, and blocks with an explicit, longer
    context in their self-attention. After the job the UNet's forward is its own again, and the blocks see only
    themselves, still explicitly."""
    block = unet.input_blocks[1][1].transformer_blocks[0]

    def forward(x: torch.Tensor, context: Any = None) -> torch.Tensor:
        own = block.norm1(x)
        x = block.attn1(own, context=torch.cat([own, own], 1) if at_work else own) + x
        x = block.attn2(block.norm2(x), context=context) + x
        return block.ff(block.norm3(x)) + x

    block._original_inner_forward_cn_hijack = block._forward
    block._forward = forward
    own_forward = unet.forward
    unet.forward = lambda *args, **kwargs: own_forward(*args, **kwargs)
    if at_work:
        unet._original_forward = own_forward


def reference_no_more(unet: LdmUNet) -> None:
    """Its next job puts the block's own forward back, and leaves the copy where it was."""
    reference(unet)
    block = unet.input_blocks[1][1].transformer_blocks[0]
    block._forward = block._original_inner_forward_cn_hijack


CONFLICTS: dict[str, tuple[Callable[[LdmUNet], None], str]] = {
    "tomesd": (partial(merge_tokens, ratio=0.5), "token merging is on"),
    "hypertile": (partial(hypertile, enabled=True), "HyperTile is on"),
    "lllite": (partial(control_lllite, models=[object()]), "a ControlLLLite model is in use"),
    "reference": (reference, "ControlNet's reference mode is in use"),
}
PEACEFUL: dict[str, Callable[[LdmUNet], None]] = {
    "nobody": lambda unet: None,
    "tomesd with ratio 0": partial(merge_tokens, ratio=0.0),
    "tomesd without attention": partial(merge_tokens, ratio=0.5, merge_attn=False, merge_mlp=True),
    "tomesd, used before": merge_tokens_no_more,
    "hypertile, used before": partial(hypertile, enabled=False),
    "lllite, used before": partial(control_lllite, models=[]),
    "reference, used before": partial(reference, at_work=False),
    "reference, used before the last job": reference_no_more,
}


@pytest.mark.parametrize(("apply", "reason"), CONFLICTS.values(), ids=list(CONFLICTS))
def test_windows_give_way_and_it_is_said_why(apply: Callable[[LdmUNet], None], reason: str) -> None:
    unet = tiny_unet()
    apply(unet)
    conflict = windows_conflict(unet, map_unet(unet), {})
    assert conflict == reason
    options = Options(native_size=64)
    plan = make_plan(options, map_unet(unet), LATENT, Task(windows_conflict=conflict))
    assert plan.describe(10) == f"RAU-Net until step 4 of 10, no MSW-MSA because {reason}"
    only_windows = make_plan(
        Options(native_size=64, rau_net=False), map_unet(unet), LATENT, Task(windows_conflict=conflict)
    )
    assert not only_windows.active
    assert reason in only_windows.reason
    x, context = inputs(LATENT)
    t = torch.tensor([999.0])
    torch.manual_seed(0)
    with torch.inference_mode():
        before = unet(x, t, context=context)
        state = [(type(module), dict(vars(module))) for module in unet.modules()]
        with hidiffusion(unet, plan, Run(Schedule(uniform_timesteps(10)))):
            assert not torch.equal(unet(x, t, context=context), before)
        assert [(type(module), dict(vars(module))) for module in unet.modules()] == state
        if reason != "token merging is on":  # which draws at every call
            assert torch.equal(unet(x, t, context=context), before)


@pytest.mark.parametrize("name", PEACEFUL)
def test_what_is_there_but_not_at_work_is_no_conflict(name: str) -> None:
    x, context = inputs(LATENT)
    t = torch.tensor([999.0])
    pictures: list[torch.Tensor] = []
    for apply in (PEACEFUL[name], PEACEFUL["nobody"]):
        unet = tiny_unet()
        apply(unet)
        assert windows_conflict(unet, map_unet(unet), {}) == ""
        plan = make_plan(Options(native_size=64), map_unet(unet), LATENT)
        with torch.inference_mode(), hidiffusion(unet, plan, Run(Schedule(uniform_timesteps(10)))):
            pictures.append(unet(x, t, context=context))
    if name != "tomesd without attention":  # which is at work elsewhere
        assert torch.equal(*pictures)


@pytest.mark.parametrize(("limit", "conflict"), [(1, ""), (2, "token merging is on")])
def test_token_merging_that_stops_above_the_windows_is_no_conflict(limit: int, conflict: str) -> None:
    unet = tiny_unet(Family.SDXL)
    merge_tokens(unet, ratio=0.5, max_downsample=limit)
    assert windows_conflict(unet, map_unet(unet), {}) == conflict


def test_token_merging_taken_off_while_the_unet_is_patched() -> None:
    unet = tiny_unet()
    x, context = inputs(LATENT)
    t = torch.tensor([999.0])
    with torch.inference_mode():
        before = unet(x, t, context=context)
        merge_tokens(unet, ratio=0.5)
        plan = make_plan(Options(native_size=64), map_unet(unet), LATENT, Task(windows_conflict="it is on"))
        with hidiffusion(unet, plan, Run(Schedule(uniform_timesteps(10)))):
            tomesd.remove_patch(model_of(unet))
            unet(x, t, context=context)
        assert torch.equal(unet(x, t, context=context), before)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in unet.modules())


@pytest.mark.parametrize(
    ("options", "conflict"),
    [
        ({}, ""),
        ({"patches": {"output_block_patch": [print]}, "patches_replace": {"attn2": {("input", 1, 0): print}}}, ""),
        ({"patches_replace": {"attn1": {("middle", 0, 0): print}}}, ""),  # SAG and PAG
        ({"patches": {"attn1_patch": [print]}}, "another extension changes self-attention"),
        ({"patches_replace": {"attn1": {("output", 11): print}}}, "another extension replaces self-attention"),
        ({"patches_replace": {"attn1": {("input", 2, 0): print}}}, "another extension replaces self-attention"),
    ],
)
def test_what_the_forge_family_is_asked_to_do_in_self_attention(options: dict[str, Any], conflict: str) -> None:
    unet = tiny_unet()
    assert windows_conflict(unet, map_unet(unet), options) == conflict


class PatchModelAddDownscale:
    """Deep Shrink as the Forge family has it: functions that shrink the features after a block and bring them back."""

    def patches(self) -> dict[str, list[Callable[..., Any]]]:
        def input_block_patch(h: torch.Tensor, options: Any) -> torch.Tensor:
            return h[..., ::2, ::2]

        def output_block_patch(h: torch.Tensor, skip: torch.Tensor, options: Any) -> tuple[torch.Tensor, torch.Tensor]:
            return h, skip

        return {"input_block_patch_after_skip": [input_block_patch], "output_block_patch": [output_block_patch]}


@pytest.mark.parametrize(
    ("patches", "conflict"),
    [
        ({}, ""),
        ({"output_block_patch": [print], "input_block_patch": [print]}, ""),  # FreeU and others
        (PatchModelAddDownscale().patches(), "Deep Shrink (Kohya HRFix) is on"),
        (
            {"input_block_patch": PatchModelAddDownscale().patches()["input_block_patch_after_skip"]},
            "Deep Shrink (Kohya HRFix) is on",
        ),
    ],
)
def test_deep_shrink_is_recognised(patches: dict[str, Any], conflict: str) -> None:
    assert method_conflict({"patches": patches}) == conflict


@pytest.mark.parametrize(
    ("options", "described"),
    [
        (Options(native_size=64), "MSW-MSA, no RAU-Net because Deep Shrink is on"),
        (Options(native_size=64, method=Method.SCALECRAFTER), "MSW-MSA, no re-dilation because Deep Shrink is on"),
        (Options(native_size=64, msw_msa=False), "nothing: no RAU-Net because Deep Shrink is on"),
        (Options(native_size=64, rau_net=False), "MSW-MSA"),
        (Options(native_size=512), "nothing to do at 192x128: the model was made for 512x512"),
    ],
)
def test_what_does_the_same_job_is_left_alone(options: Options, described: str) -> None:
    unet_map = map_unet(tiny_unet())
    plan = make_plan(options, unet_map, LATENT, Task(method_conflict="Deep Shrink is on"))
    assert plan.describe(10) == described
    assert not plan.strided.end
    assert not plan.pooled.end
    assert not plan.redilations
    assert not plan.damped.end


def test_both_conflicts_at_once_leave_nothing() -> None:
    task = Task(method_conflict="Deep Shrink is on", windows_conflict="HyperTile is on")
    plan = make_plan(Options(native_size=64), map_unet(tiny_unet()), LATENT, task)
    assert plan.reason == "nothing: no RAU-Net because Deep Shrink is on, no MSW-MSA because HyperTile is on"
