"""UNets are recognised by structure, and others refused with one sentence."""

from __future__ import annotations

import pytest
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn
from unets import CONTEXT, tiny_unet

from hidiffusion_ext.core import Family, UnsupportedUNet, map_unet


@pytest.mark.parametrize("family", Family)
def test_the_families_are_told_apart_at_any_width(family: Family) -> None:
    assert map_unet(tiny_unet(family)).family is family


def test_the_sites_of_sd1() -> None:
    unet_map = map_unet(tiny_unet(Family.SD1))
    assert unet_map.downs == (3, 6, 9)
    assert [i for i, block in enumerate(unet_map.outputs) if block.up] == [2, 5, 8]
    assert unet_map.inputs[3].down == "input_blocks.3.0.op"
    assert unet_map.outputs[8].up == "output_blocks.8.2.conv"
    assert unet_map.inputs[4].layers == ("input_blocks.4.0", "input_blocks.4.1")
    assert unet_map.inputs[1].attentions == ("input_blocks.1.1.transformer_blocks.0.attn1",)
    assert [unet_map.level(i) for i in range(12)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_the_sites_of_sdxl() -> None:
    unet_map = map_unet(tiny_unet(Family.SDXL, depth=2, deep=10, in_channels=9))
    assert unet_map.downs == (3, 6)
    assert [i for i, block in enumerate(unet_map.outputs) if block.up] == [2, 5]
    assert [len(block.attentions) for block in unet_map.inputs] == [0, 0, 0, 0, 2, 2, 0, 10, 10]
    assert [len(block.attentions) for block in unet_map.outputs] == [10, 10, 10, 2, 2, 2, 0, 0, 0]
    assert unet_map.in_channels == 9


def test_every_name_leads_to_its_module() -> None:
    unet = tiny_unet(Family.SDXL, depth=2)
    for block in (*map_unet(unet).inputs, *map_unet(unet).outputs):
        for name in filter(None, (block.down, block.up, *block.layers, *block.attentions)):
            assert isinstance(unet.get_submodule(name), nn.Module)


def test_modules_added_to_a_block_by_others_are_passed_over() -> None:
    unet = tiny_unet()
    expected = map_unet(unet)
    unet.input_blocks[4].append(nn.Identity())
    found = map_unet(unet)
    assert found.inputs[4].layers[-1] == "input_blocks.4.2"
    assert found.inputs[4].attentions == expected.inputs[4].attentions


def unet(**changes: object) -> UNetModel:
    config = dict(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=32,
        num_res_blocks=2,
        channel_mult=(1, 1, 1, 1),
        attention_resolutions=(1, 2, 4),
        num_heads=2,
        use_spatial_transformer=True,
        context_dim=CONTEXT,
        legacy=False,
    )
    return UNetModel(**{**config, **changes})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (unet(attention_resolutions=(2, 4)), "SDXL refiner"),
        (unet(attention_resolutions=(2, 4), in_channels=7), "x4 upscaler"),
        (unet(channel_mult=(1, 1), attention_resolutions=(1, 2)), "2 levels"),
        (unet(use_spatial_transformer=False, context_dim=None), "no transformer blocks"),
        (nn.TransformerEncoderLayer(8, 2), "TransformerEncoderLayer"),
    ],
    ids=["refiner", "x4 upscaler", "two levels", "no transformers", "diffusion transformer"],
)
def test_other_models_are_refused_with_a_sentence(model: nn.Module, words: str) -> None:
    with pytest.raises(UnsupportedUNet, match=words):
        map_unet(model)


def test_a_map_made_during_a_step_is_the_same() -> None:
    unet = tiny_unet()
    before = map_unet(unet)
    unet.input_blocks[3][0].op.stride = (4, 4)  # what RAU-Net does for the time of its forward
    assert map_unet(unet) == before
