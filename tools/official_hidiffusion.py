"""The official implementation (PyPI `hidiffusion`, Apache-2.0) on the weights of an ldm UNet, to compare with.

It is installed for the comparison and called as it is; none of its code is here.
"""

from __future__ import annotations

from typing import Any

from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from hidiffusion_ext.core import Family
from ldm_unet import Shape

NAMES = {
    Family.SD1: "runwayml/stable-diffusion-v1-5",
    Family.SD2: "stabilityai/stable-diffusion-2-1-base",
    Family.SDXL: "stabilityai/stable-diffusion-xl-base-1.0",
}
"""The names by which the official code knows a family."""


class DiffusionPipeline:
    """What the official code needs of a diffusers pipeline; it looks at the class's name."""

    def __init__(self, unet: UNet2DConditionModel, name: str, steps: int) -> None:
        self.unet, self.name_or_path, self._num_timesteps = unet, name, steps


def diffusers_unet(unet: nn.Module, shape: Shape, in_channels: int = 4) -> UNet2DConditionModel:
    """The same network as a diffusers UNet with the same weights."""
    plain, text = ("DownBlock2D", "UpBlock2D"), ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
    is_sdxl = shape.family is Family.SDXL
    levels = (plain, text, text) if is_sdxl else (text, text, text, plain)
    config: dict[str, Any] = dict(
        in_channels=in_channels,
        layers_per_block=2,
        block_out_channels=shape.channels,
        down_block_types=[down for down, _ in levels],
        up_block_types=[up for _, up in reversed(levels)],
        transformer_layers_per_block=[1, shape.depth, shape.deep or shape.depth] if is_sdxl else shape.depth,
        attention_head_dim=shape.heads,  # diffusers' name for their number
        cross_attention_dim=shape.context,
        use_linear_projection=shape.family is not Family.SD1,
    )
    converted = UNet2DConditionModel(**config).eval().requires_grad_(False)
    weights = {f"model.diffusion_model.{name}": value for name, value in unet.state_dict().items()}
    converted.load_state_dict(convert_ldm_unet_checkpoint(weights, config))
    return converted
