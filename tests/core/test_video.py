"""Video (AnimateDiff): the frames are the batch, and layers put into the blocks mix them over time."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import nn
from unets import inputs, shared_unet, tiny_unet, uniform_timesteps

from hidiffusion_ext.core import Options, Plan, Run, Schedule, hidiffusion, make_plan, map_unet
from hidiffusion_ext.core.parts.damped_guidance import DampedGuidance, damp
from ldm_unet import LdmUNet

FRAMES = 3
STEPS = 5


class MotionModule(nn.Module):
    """Self-attention over the frames of each cell, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)
        nn.init.normal_(self.attention.out_proj.weight, std=channels**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        over_time = rearrange(x, "(b f) c h w -> (b h w) f c", f=FRAMES)
        mixed = self.attention(over_time, over_time, over_time, need_weights=False)[0]
        return x + rearrange(mixed, "(b h w) f c -> (b f) c h w", h=height, w=width)


def video_unet() -> LdmUNet:
    """A UNet with motion modules where AnimateDiff's extension puts them: last in a block, but before an upsampler."""
    torch.manual_seed(0)
    unet = tiny_unet(sized=True)
    for block in (*unet.input_blocks[1:], *unet.output_blocks):
        if hasattr(block[-1], "op"):
            continue
        before_upsampler = hasattr(block[-1], "use_conv") and hasattr(block[-1], "conv")
        motion = MotionModule(block[0].out_channels)
        block.insert(len(block) - 1 if before_upsampler else len(block), motion)
    motions = [module for module in unet.modules() if isinstance(module, MotionModule)]
    assert len(motions) == 20
    return unet.eval().requires_grad_(False)


METHODS: list[dict[str, Any]] = [
    {"method": "HiDiffusion"},
    {"method": "HiDiffusion", "preset": "4x"},
    {"method": "ScaleCrafter"},
    {"method": "ScaleCrafter", "preset": "4x", "dispersion": True},
]


def video_plan(unet: nn.Module, latent: tuple[int, int], options: dict[str, Any]) -> Plan:
    return make_plan(Options.from_mapping({"native_size": 64, **options}), map_unet(unet), latent)


def test_motion_modules_hide_no_site() -> None:
    with_motion, without = map_unet(video_unet()), map_unet(shared_unet())
    assert with_motion.family is without.family
    for ours, theirs in zip((*with_motion.inputs, *with_motion.outputs), (*without.inputs, *without.outputs)):
        assert (ours.down, ours.convs, ours.attentions) == (theirs.down, theirs.convs, theirs.attentions)
        assert (ours.up is None) == (theirs.up is None)


@lru_cache
def unchanged(latent: tuple[int, int]) -> list[torch.Tensor]:
    """What the UNet gives for a clip at every step."""
    unet, (x, context) = video_unet(), inputs(latent, batch=2 * FRAMES)
    with torch.inference_mode():
        return [unet(x, torch.full((len(x),), t), context=context) for t in uniform_timesteps(STEPS)]


@pytest.mark.parametrize(
    ("latent", "options"),
    [*(((11, 14), options) for options in METHODS), ((16, 16), METHODS[0]), ((16, 8), METHODS[0])],
)
def test_clips_of_any_size_are_changed_until_their_step_and_then_nothing_is_left(
    options: dict[str, Any], latent: tuple[int, int]
) -> None:
    unet = video_unet()
    plan = video_plan(unet, latent, {**options, "msw_msa": False})
    modules, timesteps = list(unet.modules()), uniform_timesteps(STEPS)
    x, context = inputs(latent, batch=2 * FRAMES)
    last = max(span.end for part in plan.parts for span in part.spans)
    run = Run(Schedule(timesteps))
    with torch.inference_mode():
        with hidiffusion(unet, plan, run):
            for step, t in enumerate(timesteps):
                changed = unet(x, torch.full((len(x),), t), context=context)
                assert changed.shape == x.shape
                assert torch.equal(changed, unchanged(latent)[step]) == (step >= int(STEPS * last))
                if run.has(DampedGuidance):
                    with run.base_evaluation():  # the unconditional clip is evaluated as a whole
                        base = unet(x[FRAMES:], torch.full((FRAMES,), t), context=context[FRAMES:])
                    assert damp(changed[:FRAMES], changed[FRAMES:], base).shape == base.shape
        assert torch.equal(unet(x, torch.full((len(x),), timesteps[0]), context=context), unchanged(latent)[0])
    assert list(unet.modules()) == modules
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)


@pytest.mark.parametrize("options", METHODS, ids=str)
def test_a_clip_is_the_same_whatever_else_is_in_the_batch(options: dict[str, Any]) -> None:
    unet = video_unet()
    plan = video_plan(unet, (16, 24), options)
    t = uniform_timesteps(STEPS)[1]
    x, context = inputs((16, 24), batch=2 * FRAMES)
    with torch.inference_mode(), hidiffusion(unet, plan, Run(Schedule(uniform_timesteps(STEPS)))):
        both = unet(x, torch.full((2 * FRAMES,), t), context=context)
        one = unet(x[:FRAMES], torch.full((FRAMES,), t), context=context[:FRAMES])
    torch.testing.assert_close(both[:FRAMES], one, atol=1e-4, rtol=0)
