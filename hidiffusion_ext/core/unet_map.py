"""Finds the sites of a UNet by structure.

The map holds names, not modules: it can be compared, printed, cached and kept without holding a model in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import cast

from torch import nn

from .options import Refused

Axes = tuple[bool, bool]
"""Something of both axes of a picture: (down, across)."""

BORDERED: Axes = (False, False)
"""No axis is seamless."""


class UnsupportedUNet(Refused):
    """The model is not one HiDiffusion is made for; the message is one sentence for the user."""


class Family(str, Enum):
    """UNet layouts the method has presets for."""

    SD1 = "SD1.5"
    SD2 = "SD2.1"
    SDXL = "SDXL"


@dataclass(frozen=True)
class Block:
    """One input, middle or output block: the names of its sites as `unet.get_submodule` takes them.

    Attributes:
        channels: How many channels it gives out.
        layers: The block's direct layers, in order.
        down: The strided 3x3 convolution of its Downsample, or None.
        up: The convolution of its Upsample, or None.
        convs: The 3x3 convolutions of its residual blocks, in order.
        attentions: The self-attentions (attn1) of its transformer blocks, in order.
    """

    channels: int
    layers: tuple[str, ...]
    down: str | None
    up: str | None
    convs: tuple[str, ...]
    attentions: tuple[str, ...]


@dataclass(frozen=True)
class SelfAttention:
    """A self-attention over the picture.

    Attributes:
        name: That of the module (attn1).
        block: The index of its block.
        output: Whether that is an output block; otherwise an input block.
    """

    name: str
    block: int
    output: bool


@dataclass(frozen=True)
class UNetMap:
    """The sites of one ldm/sgm UNet.

    Output block j consumes the skip connection of input block `len(inputs) - 1 - j`.

    Attributes:
        in_channels: How many channels it is called with: the latent's, and what else some models are shown behind them.
        out_channels: How many it answers with: the latent's.
        seamless: The axes along which its convolutions take a picture to go on at its other edge (tiling).
    """

    family: Family
    in_channels: int
    out_channels: int
    inputs: tuple[Block, ...]
    middle: Block
    outputs: tuple[Block, ...]
    seamless: Axes = BORDERED

    @property
    def inpaints(self) -> bool:
        """Whether it is shown a mask and a picture beside the latent."""
        return self.in_channels == 2 * self.out_channels + 1

    @property
    def downs(self) -> tuple[int, ...]:
        """Indices of the input blocks that halve the feature map."""
        return tuple(i for i, block in enumerate(self.inputs) if block.down)

    def partner(self, index: int) -> int:
        """The output block that consumes input block `index`'s skip connection, and the other way round."""
        return len(self.inputs) - 1 - index

    def level(self, index: int) -> int:
        """How many times the feature map has been halved inside input block `index`."""
        return sum(down <= index for down in self.downs)

    @property
    def deep_blocks(self) -> tuple[Block, ...]:
        """The blocks below the finest level, in the order they run: from its downsampler to the upsampler back."""
        first = self.downs[0]
        return *self.inputs[first:], self.middle, *self.outputs[: self.partner(first) + 1]

    @property
    def finest_attentions(self) -> tuple[SelfAttention, ...]:
        """The self-attentions of the finest level that has any, in the order they run."""
        finest = min(self.level(i) for i, block in enumerate(self.inputs) if block.attentions)
        inside = [i for i in range(len(self.inputs)) if self.level(i) == finest]
        found = [SelfAttention(name, i, output=False) for i in inside for name in self.inputs[i].attentions]
        for index in (self.partner(i) for i in reversed(inside)):
            found += [SelfAttention(name, index, output=True) for name in self.outputs[index].attentions]
        return tuple(found)


def map_unet(unet: nn.Module) -> UNetMap:
    """The map of an ldm or sgm UNet.

    Raises:
        UnsupportedUNet: for the SDXL refiner, diffusion transformers and every other layout.
    """
    inputs, middle, outputs = (getattr(unet, part, None) for part in ("input_blocks", "middle_block", "output_blocks"))
    if not (isinstance(inputs, nn.Module) and isinstance(middle, nn.Module) and isinstance(outputs, nn.Module)):
        raise UnsupportedUNet(
            f"this model ({type(unet).__name__}) is not a UNet with input and output blocks; "
            "HiDiffusion works with SD1.5, SD2.1 and SDXL models"
        )
    in_blocks = tuple(_block(f"input_blocks.{name}", block) for name, block in inputs.named_children())
    out_blocks = tuple(_block(f"output_blocks.{name}", block) for name, block in outputs.named_children())
    first, *_ = *_all_convs(inputs), None
    *_, last = None, *_all_convs(getattr(unet, "out", nn.Identity()))
    if not in_blocks or len(in_blocks) != len(out_blocks) or not first or not last:
        raise UnsupportedUNet("this UNet has unpaired input and output blocks; HiDiffusion does not know it")
    family = _family(unet, in_blocks, first.in_channels)
    channels = first.in_channels, last.out_channels
    unet_map = UNetMap(family, *channels, in_blocks, _block("middle_block", middle), out_blocks, _seamless(first))
    if any(out_blocks[unet_map.partner(down)].up is None for down in unet_map.downs):
        raise UnsupportedUNet("this UNet has a downsampler without an upsampler; HiDiffusion does not know it")
    return unet_map


def _block(name: str, block: nn.Module) -> Block:
    down = up = None
    attentions: list[str] = []
    layers: list[str] = []
    convs: list[str] = []
    for child_name, layer in block.named_children():
        path = f"{name}.{child_name}"
        layers.append(path)
        if isinstance(op := getattr(layer, "op", None), nn.Conv2d) and op.stride != (1, 1):  # 4 during a run
            down = f"{path}.op"
        elif hasattr(layer, "use_conv") and isinstance(getattr(layer, "conv", None), nn.Conv2d):
            up = f"{path}.conv"
        elif hasattr(layer, "in_layers") and hasattr(layer, "out_layers"):
            convs += [f"{path}.{name}" for name in _convs(layer) if name.startswith(("in_layers.", "out_layers."))]
        elif isinstance(transformers := getattr(layer, "transformer_blocks", None), nn.Module):
            attentions += [
                f"{path}.transformer_blocks.{depth}.attn1"
                for depth, transformer in transformers.named_children()
                if isinstance(getattr(transformer, "attn1", None), nn.Module)
            ]
    channels = [module.out_channels for module in block.modules() if isinstance(module, nn.Conv2d)][-1:]
    return Block(sum(channels), tuple(layers), down, up, tuple(convs), tuple(attentions))


def _all_convs(module: nn.Module) -> list[nn.Conv2d]:
    return [each for each in module.modules() if isinstance(each, nn.Conv2d)]


def _seamless(conv: nn.Conv2d) -> Axes:
    """The axes along which a convolution takes a picture to go on at its other edge.

    Asymmetric tiling puts a function of its own in for it and says on the module what it does along each axis.
    """
    own = getattr(conv._conv_forward, "__func__", None) is not nn.Conv2d._conv_forward  # pyright: ignore[reportPrivateUsage]
    modes = [getattr(conv, f"padding_mode{axis}", None) if own else None for axis in "YX"]
    down, across = ((mode or conv.padding_mode) == "circular" for mode in modes)
    return down, across


def _convs(layer: nn.Module) -> list[str]:
    """The names of the 3x3 convolutions in a layer."""
    modules = cast("Iterator[tuple[str, nn.Module]]", layer.named_modules())
    return [name for name, conv in modules if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3)]


def _family(unet: nn.Module, inputs: tuple[Block, ...], in_channels: int) -> Family:
    levels = 1 + sum(block.down is not None for block in inputs)
    finest = next((i for i, block in enumerate(inputs) if block.attentions), None)
    if finest is None:
        raise UnsupportedUNet("this UNet has no transformer blocks; HiDiffusion does not know it")
    finest_level = sum(block.down is not None for block in inputs[: finest + 1])
    if (levels, finest_level) == (3, 1):
        return Family.SDXL
    if (levels, finest_level) == (4, 0):
        # SD2 projects into its transformers with a linear layer, SD1 with a 1x1 convolution.
        transformer = unet.get_submodule(inputs[finest].attentions[0].split(".transformer_blocks.")[0])
        return Family.SD1 if isinstance(getattr(transformer, "proj_in", None), nn.Conv2d) else Family.SD2
    if (levels, finest_level, in_channels) == (4, 1, 7):  # a latent and a small picture
        raise UnsupportedUNet("this is the x4 upscaler, which enlarges an existing picture; it is left unchanged")
    if (levels, finest_level) == (4, 1):
        raise UnsupportedUNet("this is the SDXL refiner, which only polishes an existing picture; it is left unchanged")
    raise UnsupportedUNet(
        f"this UNet has {levels} levels with transformers from level {finest_level}; "
        "HiDiffusion works with SD1.5, SD2.1 and SDXL models"
    )
