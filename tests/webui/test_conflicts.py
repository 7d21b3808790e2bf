"""Other programs that change the same modules: recognised, left in peace, and none of theirs is lost."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import tomesd
import torch
from plans import PARTS, held
from told import parts_of
from torch import nn
from unets import inputs, tiny_unet, uniform_timesteps

from hidiffusion_ext.core import (
    Conflict,
    Family,
    LeftOut,
    Method,
    Need,
    Options,
    Plan,
    Refused,
    Run,
    Schedule,
    Situation,
    hidiffusion,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.options import FasterSecondPass
from hidiffusion_ext.core.parts.part import WHOLE
from hidiffusion_ext.core.words import describe
from hidiffusion_ext.hosts.conflicts import (
    CHANGES_SELF_ATTENTION,
    CONTROLNET_AT_WORK,
    DEEP_SHRINK_ON,
    HYPERTILE_ON,
    IN_FEATURES,
    IN_SELF_ATTENTION,
    LLLITE_IN_USE,
    MASKS_REGIONS,
    OWN_SELF_ATTENTION,
    PADS_IN_ITS_OWN_WAY,
    READS_THE_MIDDLE,
    REFERENCE_IN_USE,
    REPLACES_SELF_ATTENTION,
    RESIZES_FEATURES,
    RUNS_BESIDE_DOWNSAMPLERS,
    TOKENS_MERGED,
    WORKS_IN_LAYERS,
    conflicts,
)
from ldm_unet import LdmUNet
from modules import script_callbacks, shared

LATENT = (16, 24)
TEN_STEPS = Schedule(uniform_timesteps(10))
SIZES, BOTH = {"RAU-Net", "relay", "DeepCache"}, {"RAU-Net", "re-dilation", "relay", "DeepCache"}
"""What relies on sizes of feature maps being nobody's else, and what changes them; what leaves layers out."""


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


class ControlLLLite:
    """What a ControlLLLite model adds to the tokens before a projection: a picture of the feature map, made in the size
    of the first call and kept for the pass."""

    def __init__(self) -> None:
        self.picture: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.picture is None:
            self.picture = torch.ones(1, *x.shape[1:])
        return x + self.picture


def control_lllite(unet: LdmUNet, block: int = 1, attention: str = "attn1", models: int = 1) -> None:
    """What sd-webui-controlnet does to a projection for it; the list is empty and the forward in place between jobs."""
    projection = getattr(unet.input_blocks[block][1].transformer_blocks[0], attention).to_q
    original = projection.forward
    projection.lllite_list = [ControlLLLite() for _ in range(models)]

    def forward(x: torch.Tensor) -> torch.Tensor:
        for model in projection.lllite_list:
            x = model(x)
        return original(x)

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


def all_conflicts(unet: LdmUNet, options: dict[str, Any] | None = None) -> tuple[Conflict, ...]:
    return tuple(conflicts(unet, map_unet(unet), options or {}))


def reasons(unet: LdmUNet, options: dict[str, Any] | None = None) -> dict[str, str]:
    """The parts that have to be left out, by their names, and why."""
    situation = Situation(conflicts=all_conflicts(unet, options))
    return {name: reason for name, kind in PARTS.items() if (reason := situation.against(kind))}


CONFLICTS: dict[str, tuple[Callable[[LdmUNet], None], str]] = {
    "tomesd": (partial(merge_tokens, ratio=0.5), TOKENS_MERGED),
    "hypertile": (partial(hypertile, enabled=True), HYPERTILE_ON),
    "reference": (reference, REFERENCE_IN_USE),
}
PEACEFUL: dict[str, Callable[[LdmUNet], None]] = {
    "nobody": lambda unet: None,
    "tomesd with ratio 0": partial(merge_tokens, ratio=0.0),
    "tomesd without attention": partial(merge_tokens, ratio=0.5, merge_attn=False, merge_mlp=True),
    "tomesd, used before": merge_tokens_no_more,
    "hypertile, used before": partial(hypertile, enabled=False),
    "lllite, used before": partial(control_lllite, models=0),
    "reference, used before": partial(reference, at_work=False),
    "reference, used before the last job": reference_no_more,
}


@pytest.mark.parametrize(("apply", "reason"), CONFLICTS.values(), ids=list(CONFLICTS))
def test_windows_give_way_and_it_is_said_why(apply: Callable[[LdmUNet], None], reason: str) -> None:
    unet = tiny_unet()
    apply(unet)
    found = reasons(unet)
    for name in ("relay", "DeepCache"):
        assert found.pop(name, None) == (CONTROLNET_AT_WORK if apply is reference else None)
    assert found == {"MSW-MSA": reason}
    situation = Situation(conflicts=all_conflicts(unet))
    plan = make_plan(Options(native_size=64), map_unet(unet), LATENT, situation)
    assert parts_of(describe(plan, TEN_STEPS)) == {"RAU-Net": (1, 4, 10), "MSW-MSA": reason}
    with pytest.raises(Refused) as refused:
        make_plan(Options(native_size=64, rau_net=False), map_unet(unet), LATENT, situation)
    assert parts_of(str(refused.value)) == {"MSW-MSA": reason}
    x, context = inputs(LATENT)
    t = torch.tensor([999.0])
    torch.manual_seed(0)
    with torch.inference_mode():
        before = unet(x, t, context=context)
        state = [(type(module), dict(vars(module))) for module in unet.modules()]
        with hidiffusion(unet, plan, Run(TEN_STEPS)):
            assert not torch.equal(unet(x, t, context=context), before)
        assert [(type(module), dict(vars(module))) for module in unet.modules()] == state
        if reason != TOKENS_MERGED:  # which draws at every call
            assert torch.equal(unet(x, t, context=context), before)


@pytest.mark.parametrize("name", PEACEFUL)
def test_what_is_there_but_not_at_work_is_no_conflict(name: str) -> None:
    x, context = inputs(LATENT)
    t = torch.tensor([999.0])
    pictures: list[torch.Tensor] = []
    for apply in (PEACEFUL[name], PEACEFUL["nobody"]):
        unet = tiny_unet()
        apply(unet)
        found = reasons(unet)
        for part in ("relay", "DeepCache"):
            found.pop(part, None)  # some other ControlNet is at work in one of them
        assert found == {}
        plan = make_plan(Options(native_size=64), map_unet(unet), LATENT)
        with torch.inference_mode(), hidiffusion(unet, plan, Run(TEN_STEPS)):
            pictures.append(unet(x, t, context=context))
    if name != "tomesd without attention":  # which is at work elsewhere
        assert torch.equal(*pictures)


@pytest.mark.parametrize(("limit", "found"), [(1, {}), (2, {"MSW-MSA": TOKENS_MERGED})])
def test_token_merging_that_stops_above_the_windows_is_no_conflict(limit: int, found: dict[str, str]) -> None:
    unet = tiny_unet(Family.SDXL)
    merge_tokens(unet, ratio=0.5, max_downsample=limit)
    assert reasons(unet) == found


def test_token_merging_taken_off_while_the_unet_is_patched() -> None:
    unet = tiny_unet()
    x, context = inputs(LATENT)
    t = torch.tensor([999.0])
    with torch.inference_mode():
        before = unet(x, t, context=context)
        merge_tokens(unet, ratio=0.5)
        plan = make_plan(Options(native_size=64), map_unet(unet), LATENT, Situation(conflicts=held(Need.TOKENS)))
        with hidiffusion(unet, plan, Run(TEN_STEPS)):
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
        ({"patches": {"attn1_patch": [print]}}, CHANGES_SELF_ATTENTION),
        ({"patches_replace": {"attn1": {("output", 11): print}}}, REPLACES_SELF_ATTENTION),
        ({"patches_replace": {"attn1": {("input", 2, 0): print}}}, REPLACES_SELF_ATTENTION),
    ],
)
def test_what_the_forge_family_is_asked_to_do_in_self_attention(options: dict[str, Any], conflict: str) -> None:
    unet = tiny_unet()
    assert reasons(unet, options).get("MSW-MSA", "") == conflict


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
        (PatchModelAddDownscale().patches(), DEEP_SHRINK_ON),
        (
            {"input_block_patch": PatchModelAddDownscale().patches()["input_block_patch_after_skip"]},
            DEEP_SHRINK_ON,
        ),
    ],
)
def test_deep_shrink_is_recognised(patches: dict[str, Any], conflict: str) -> None:
    unet = tiny_unet()
    assert reasons(unet, {"patches": patches}) == (dict.fromkeys(BOTH, conflict) if conflict else {})


def test_what_else_works_on_blocks_leaves_all_but_kept_layers_as_they_are() -> None:
    """FreeU and others."""
    patches = {"output_block_patch": [print], "input_block_patch": [print]}
    assert reasons(tiny_unet(), {"patches": patches}).keys() == {"DeepCache"}


@pytest.mark.parametrize(
    ("options", "kept", "left_out"),
    [
        (Options(native_size=64), ["MSW-MSA"], ["RAU-Net"]),
        (Options(native_size=64, method=Method.SCALECRAFTER), ["MSW-MSA"], ["re-dilation"]),
        (Options(native_size=64, rau_net=False), ["MSW-MSA"], []),
        (Options(native_size=512), [], []),
    ],
)
def test_what_does_the_same_job_is_left_alone(options: Options, kept: list[str], left_out: list[str]) -> None:
    unet_map = map_unet(tiny_unet())
    situation = Situation(conflicts=held(Need.RESIZING, reason=DEEP_SHRINK_ON))
    plan = make_plan(options, unet_map, LATENT, situation)
    assert plan.names == kept
    assert plan.left_out == tuple(LeftOut(name, DEEP_SHRINK_ON) for name in left_out)


def test_both_conflicts_at_once_leave_nothing() -> None:
    conflicts = (*held(Need.RESIZING, reason=DEEP_SHRINK_ON), *held(Need.TOKENS, reason=HYPERTILE_ON))
    for asked, told in (
        (Options(native_size=64), {"RAU-Net": DEEP_SHRINK_ON, "MSW-MSA": HYPERTILE_ON}),
        (Options(native_size=64, msw_msa=False), {"RAU-Net": DEEP_SHRINK_ON}),
    ):
        with pytest.raises(Refused) as refused:
            make_plan(asked, map_unet(tiny_unet()), LATENT, Situation(conflicts=conflicts))
        assert parts_of(str(refused.value)) == told


@pytest.mark.parametrize(
    ("block", "attention", "method", "told"),
    [
        (1, "attn2", Method.HIDIFFUSION, {"RAU-Net": LLLITE_IN_USE, "MSW-MSA": WHOLE}),
        (7, "attn1", Method.HIDIFFUSION, {"RAU-Net": LLLITE_IN_USE, "MSW-MSA": WHOLE}),
        (1, "attn1", Method.SCALECRAFTER, {"re-dilation": (1, 7, 10), "MSW-MSA": LLLITE_IN_USE}),
        (7, "attn2", Method.SCALECRAFTER, {"re-dilation": (1, 7, 10), "MSW-MSA": WHOLE}),
    ],
)
def test_raunet_leaves_the_sizes_to_control_lllite(
    block: int, attention: str, method: Method, told: dict[str, Any]
) -> None:
    unet = tiny_unet()
    unet_map = map_unet(unet)
    control_lllite(unet, block, attention)
    options = Options(native_size=64, method=method, damped_guidance=False)
    plan = make_plan(options, unet_map, LATENT, Situation(conflicts=all_conflicts(unet)))
    assert parts_of(describe(plan, TEN_STEPS)) == told
    passes_through(unet, plan)


def test_raunet_would_break_control_lllite() -> None:
    unet = tiny_unet()
    control_lllite(unet, 7)
    with pytest.raises(RuntimeError, match="size"):
        passes_through(unet, make_plan(Options(native_size=64), map_unet(unet), LATENT))


def passes_through(unet: LdmUNet, plan: Plan) -> None:
    """A pass of ten steps."""
    timesteps = uniform_timesteps(10)
    x, context = inputs(plan.latent)
    with torch.inference_mode(), hidiffusion(unet, plan, Run(Schedule(timesteps))):
        for t in timesteps:
            unet(x, torch.tensor([float(t)]), context=context)


def load_control_net_lllite_patch() -> Any:
    """As the Forge family makes what it hands to the attentions."""

    class control_net_lllite_patch:
        def __call__(self, q: Any, k: Any, v: Any, options: Any) -> Any:
            return q, k, v

    return control_net_lllite_patch()


@pytest.mark.parametrize("attention", ["attn1", "attn2"])
def test_control_lllite_on_the_forge_family(attention: str) -> None:
    unet = tiny_unet()
    found = reasons(unet, {"patches": {f"{attention}_patch": [load_control_net_lllite_patch()]}})
    assert found.pop("MSW-MSA", "") == (CHANGES_SELF_ATTENTION if attention == "attn1" else "")
    assert found == dict.fromkeys(("RAU-Net", "relay", "DeepCache"), LLLITE_IN_USE)


@pytest.mark.parametrize(
    ("functional", "layer", "conflict"),
    [
        (True, "diffusion_model_input_blocks_3_0_op", True),
        (True, "diffusion_model_input_blocks_1_1_proj_in", False),
        (False, "diffusion_model_input_blocks_3_0_op", False),
    ],
)
def test_a_lora_computed_beside_a_downsampler(
    monkeypatch: pytest.MonkeyPatch, functional: bool, layer: str, conflict: bool
) -> None:
    unet = tiny_unet()
    for name, module in unet.named_modules():
        module.network_layer_name = f"diffusion_model_{name.replace('.', '_')}"
    monkeypatch.setitem(shared.opts.data, "lora_functional", functional)
    lora = SimpleNamespace(modules={layer: object()})
    monkeypatch.setitem(sys.modules, "networks", SimpleNamespace(loaded_networks=[lora]))
    assert set(reasons(unet)) == ({"RAU-Net"} if conflict else set())


class KohyaHiresFix:
    """Deep Shrink as the extension for A1111 has it: while it is on, a callback at each step changes the blocks."""

    def process(self) -> None:
        def denoiser_callback(params: Any) -> None:
            pass

        script_callbacks.on_cfg_denoiser(denoiser_callback)


def test_deep_shrink_on_a1111() -> None:
    unet = tiny_unet()
    KohyaHiresFix().process()
    try:
        found = reasons(unet)
    finally:
        script_callbacks.callback_map["callbacks_cfg_denoiser"].pop()
    assert found == dict.fromkeys(BOTH, DEEP_SHRINK_ON)
    assert reasons(unet) == {}


class AttentionOfFrames(nn.Module):
    """What LayerDiffuse's joint modes put in the place of an attention: frames are neighbours in the batch, and each
    cell also attends to the same cell of the other frame."""

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = [own]

    def forward(self, x: torch.Tensor, context: Any = None) -> torch.Tensor:
        first, second = x[0::2], x[1::2]
        return self.own[0](x) + torch.stack([second, first], 1).flatten(0, 1)


def frames(unet: LdmUNet) -> None:
    block = unet.input_blocks[1][1].transformer_blocks[0]
    block.attn1 = AttentionOfFrames(block.attn1)


def another_port(unet: LdmUNet) -> dict[str, Any]:
    """What ports of HiDiffusion for the Forge family ask the host for."""

    def input_block_patch(h: torch.Tensor, options: Any) -> torch.Tensor:
        return nn.functional.avg_pool2d(h, 2)

    return {"patches": {"input_block_patch": [input_block_patch]}}


LARGER = (24, 32)


class MaskedAdapter:
    """What sd-webui-controlnet's IP-Adapters do with an effective region mask, in passes at the latent size LARGER."""

    def __init__(self, mask: torch.Tensor | None) -> None:
        self.effective_region_mask = mask

    def apply(self, out: torch.Tensor) -> torch.Tensor:
        if self.effective_region_mask is None:
            return out
        factor = (out.shape[1] / (LARGER[0] * LARGER[1])) ** 0.5
        size = [int(side * factor) for side in LARGER]
        mask = nn.functional.interpolate(self.effective_region_mask, size=size, mode="bilinear")
        return out * mask.view(1, -1, 1)

    def put_on(self, unet: LdmUNet) -> None:
        for block in [*unet.input_blocks, unet.middle_block, *unet.output_blocks]:
            for layer in block:
                for transformer in getattr(layer, "transformer_blocks", ()):
                    attention = transformer.attn2
                    attention.ipadapter_hacks = [lambda _, x: self.apply(x)]
                    own = attention.forward

                    def forward(x: Any, *args: Any, own: Any = own, attention: Any = attention, **kwargs: Any) -> Any:
                        return own(x, *args, **kwargs) + attention.ipadapter_hacks[0](attention, x)

                    attention.forward = forward


def masked_adapter(unet: LdmUNet) -> None:
    MaskedAdapter(torch.ones(1, 1, 8, 8)).put_on(unet)


def self_attention_guidance(unet: LdmUNet) -> None:
    """What it puts on the middle block, to keep the map for a callback, which knows one size only."""
    attention = unet.middle_block[1].transformer_blocks[0].attn1
    own = attention.forward

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        x.view(-1, math.ceil(LATENT[0] / 8), math.ceil(LATENT[1] / 8), x.shape[-1])
        return own(x, *args, **kwargs)

    attention.forward = forward


def own_padding(unet: LdmUNet) -> None:
    """Tiling of another kind: the arithmetic of every convolution, with its padding inside."""
    for conv in unet.modules():
        if isinstance(conv, nn.Conv2d):
            padding, stride = conv._reversed_padding_repeated_twice, conv.stride

            def forward(x: Any, weight: Any, bias: Any, padding: Any = padding, stride: Any = stride) -> torch.Tensor:
                return nn.functional.conv2d(nn.functional.pad(x, padding, mode="circular"), weight, bias, stride)

            conv._conv_forward = forward


def asymmetric_tiling_no_more(unet: LdmUNet) -> None:
    """It puts back PyTorch's own function, and leaves it on the convolution."""
    for conv in unet.modules():
        if isinstance(conv, nn.Conv2d):
            conv._conv_forward = nn.Conv2d._conv_forward.__get__(conv)


TABLE: dict[str, tuple[Callable[[LdmUNet], Any], set[str]]] = {
    RESIZES_FEATURES: (another_port, BOTH),
    MASKS_REGIONS: (masked_adapter, SIZES),
    READS_THE_MIDDLE: (self_attention_guidance, SIZES),
    OWN_SELF_ATTENTION: (frames, {"MSW-MSA"}),
    PADS_IN_ITS_OWN_WAY: (own_padding, {"RAU-Net", "re-dilation"}),
}
HAVE_TESTS = {
    WORKS_IN_LAYERS,
    CONTROLNET_AT_WORK,
    DEEP_SHRINK_ON,
    LLLITE_IN_USE,
    RUNS_BESIDE_DOWNSAMPLERS,
    *(reason for _, reason in CONFLICTS.values()),
}


def test_everything_that_something_gives_way_to_is_tried() -> None:
    assert {*IN_FEATURES, *IN_SELF_ATTENTION} == {*TABLE} | HAVE_TESTS


@pytest.mark.parametrize(("reason", "apply", "parts"), [(reason, *row) for reason, row in TABLE.items()])
def test_what_cannot_work_together_is_left_out(reason: str, apply: Callable[[LdmUNet], Any], parts: set[str]) -> None:
    unet = tiny_unet()
    unet_map = map_unet(unet)
    options = apply(unet) or {}
    assert reasons(unet, options) == dict.fromkeys(parts, reason)
    plan = make_plan(Options(native_size=64), unet_map, LATENT, Situation(conflicts=all_conflicts(unet, options)))
    assert {each.reason for each in plan.left_out} == {reason}


@pytest.mark.parametrize(("apply", "latent"), [(masked_adapter, LARGER), (self_attention_guidance, LATENT)])
def test_raunet_would_break_them(apply: Callable[[LdmUNet], None], latent: tuple[int, int]) -> None:
    unet = tiny_unet()
    apply(unet)
    unet_map = map_unet(unet)
    with pytest.raises(RuntimeError):
        passes_through(unet, make_plan(Options(native_size=64), unet_map, latent))
    situation = Situation(conflicts=all_conflicts(unet))
    passes_through(unet, make_plan(Options(native_size=64), unet_map, latent, situation))


def test_windows_would_mix_frames() -> None:
    unet = tiny_unet()
    frames(unet)
    unet_map = map_unet(unet)
    x, context = inputs(LATENT, batch=4)
    other = x.clone()
    other[2:] += 1  # another pair of frames

    def first_pair(plan: Plan, latent: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), hidiffusion(unet, plan, Run(TEN_STEPS)):
            return unet(latent, torch.full((4,), 1.0), context=context)[:2]

    alone = make_plan(Options(native_size=64), unet_map, LATENT)
    kept = make_plan(Options(native_size=64), unet_map, LATENT, Situation(conflicts=all_conflicts(unet)))
    assert torch.allclose(first_pair(kept, x), first_pair(kept, other), atol=1e-5)
    plain = make_plan(Options(native_size=4096), unet_map, LATENT)
    assert torch.allclose(first_pair(kept, x), first_pair(plain, x), atol=1e-5)
    assert not torch.allclose(first_pair(alone, x), first_pair(plain, x), atol=1e-2)


@pytest.mark.parametrize(
    ("apply", "left_out"),
    [
        (asymmetric_tiling_no_more, set[str]()),
        (lambda unet: MaskedAdapter(None).put_on(unet), {"DeepCache"}),  # its functions may count their calls
        (
            lambda unet: setattr(
                unet.middle_block[1].transformer_blocks[0].attn1, "__webui_hypertile_params", object()
            ),
            set[str](),
        ),
    ],
)
def test_what_looks_like_them_and_is_harmless(apply: Callable[[LdmUNet], None], left_out: set[str]) -> None:
    unet = tiny_unet()
    apply(unet)
    assert reasons(unet).keys() == left_out


def count_calls(unet: LdmUNet) -> None:
    """What extensions do that count how often a deep attention is called."""
    attention = unet.middle_block[1].transformer_blocks[0].attn2
    attention.forward = partial(attention.forward)


def hook_a_layer(unet: LdmUNet) -> None:
    unet.middle_block[0].register_forward_hook(lambda module, args, output: None)


FUNCTIONS = [
    {"patches": {"output_block_patch": [len]}},
    {"patches": {"input_block_patch": [len]}},
    {"block_modifiers": [len]},
    {"block_inner_modifiers": [len]},
]


@pytest.mark.parametrize("options", FUNCTIONS)
def test_functions_that_are_called_in_blocks_keep_all_layers(options: dict[str, Any]) -> None:
    unet = tiny_unet()
    assert any(Need.LAYERS in each.held for each in conflicts(unet, map_unet(unet), options))
    assert not conflicts(unet, map_unet(unet), {})


@pytest.mark.parametrize("work", [count_calls, hook_a_layer])
def test_whoever_works_in_the_layers_keeps_them_all(work: Callable[[LdmUNet], None]) -> None:
    unet = tiny_unet()
    work(unet)
    found = conflicts(unet, map_unet(unet), {})
    options = Options(native_size=64, faster_second_pass=FasterSecondPass.ON)
    plan = make_plan(options, map_unet(unet), LATENT, Situation(over_picture=True, conflicts=(*found,)))
    assert [each.name for each in plan.left_out] == ["DeepCache"]


def test_hypertile_counts_nothing_and_does_not() -> None:
    unet = tiny_unet()
    attention = unet.middle_block[1].transformer_blocks[0].attn1
    attention.forward = partial(attention.forward)
    setattr(attention, "__webui_hypertile_params", SimpleNamespace(enabled=True, forward=attention.forward))
    assert not any(Need.LAYERS in each.held for each in conflicts(unet, map_unet(unet), {}))
