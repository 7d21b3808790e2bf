"""Small random UNets with the real structure, built from the real ldm blocks."""

from __future__ import annotations

import torch
from ldm.modules.attention import SpatialTransformer
from ldm.modules.diffusionmodules.openaimodel import UNetModel, Upsample
from torch import nn

from fused_attention import use_fused_attention
from hidiffusion_ext.core import Family

CONTEXT = 24
"""Width of the text embeddings."""

HEADS = 2


class TinyUNet(UNetModel):
    """An ldm UNet that gives every transformer block the same text, as all hosts' versions do."""

    def forward(self, x: torch.Tensor, timesteps=None, context=None, y=None, **kwargs) -> torch.Tensor:
        return super().forward(x, timesteps, [context] * 10, y, **kwargs)


class SizedUNet(TinyUNet):
    """A UNet UNet whose upsamplers go to the size of the skip they will meet, as diffusers' and Forge's do.

    ldm's own fail at the concatenation for sizes that are not divisible by 8 (A1111 hides that).
    """

    def forward(self, x: torch.Tensor, timesteps=None, context=None, y=None, **kwargs) -> torch.Tensor:
        skips = []

        def to_next_skip(module: nn.Module, args: tuple) -> tuple:
            size = skips[-1].shape[-2:] if skips else args[0].shape[-2:]
            return (nn.functional.interpolate(args[0], size=size, mode="nearest"),)

        def remember(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            skips.append(output)

        def forget(module: nn.Module, args: tuple) -> None:
            skips.pop()

        handles = [block.register_forward_hook(remember) for block in self.input_blocks]
        handles += [block.register_forward_pre_hook(forget) for block in self.output_blocks]
        ups = (module.conv for module in self.modules() if isinstance(module, Upsample))
        handles += [conv.register_forward_pre_hook(to_next_skip, prepend=True) for conv in ups]
        try:
            return super().forward(x, timesteps, context, y, **kwargs)
        finally:
            for handle in handles:
                handle.remove()


def tiny_unet(
    family: Family = Family.SD1,
    *,
    in_channels: int = 4,
    depth: int = 1,
    deep: int = 1,
    sized: bool = False,
    seed: int = 0,
) -> TinyUNet:
    """A random UNet with outputs of order 1.

    Args:
        family: SD1 and SD2 have 4 levels with transformers on the finest three, SDXL 3 levels with transformers
            on the coarsest two.
        in_channels: 4, or 9 for inpainting.
        depth: Transformer blocks per SpatialTransformer.
        deep: The same for the coarsest transformer level (real SDXL: depth 2, deep 10).
        sized: Build a `SizedUNet`.
        seed: Seed of the weights.
    """
    sdxl = family is Family.SDXL
    linear = family is not Family.SD1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = (SizedUNet if sized else TinyUNet)(
            image_size=32,
            in_channels=in_channels,
            out_channels=4,
            model_channels=32,
            num_res_blocks=2,
            channel_mult=(1, 2, 2) if sdxl else (1, 2, 2, 2),
            attention_resolutions=(2, 4) if sdxl else (1, 2, 4),
            num_heads=HEADS,
            use_spatial_transformer=True,
            transformer_depth=depth,
            context_dim=[CONTEXT] * depth,
            use_linear_in_transformer=linear,
            legacy=False,
        )
        if deep != depth:
            coarsest = (*unet.input_blocks[-2:], unet.middle_block, *unet.output_blocks[:3])
            for block in coarsest:
                for index, layer in enumerate(block):
                    if isinstance(layer, SpatialTransformer):
                        width = layer.in_channels
                        block[index] = SpatialTransformer(
                            width, HEADS, width // HEADS, deep, context_dim=[CONTEXT] * deep, use_linear=linear
                        )
        use_fused_attention(unet)
        for parameter in unet.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5)
    return unet.eval().requires_grad_(False)


def inputs(
    latent: tuple[int, int], *, batch: int = 1, in_channels: int = 4, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A random latent and text embedding."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, in_channels, *latent, generator=generator)
    return x, torch.randn(batch, 5, CONTEXT, generator=generator)


def uniform_timesteps(steps: int) -> list[float]:
    """A falling schedule of distinct noise levels."""
    return [999 - 999 * i / steps for i in range(steps)]
