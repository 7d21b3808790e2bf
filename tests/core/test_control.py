"""ControlNet's residuals, added by a UNet the way the Forge family's does, meet the features in their size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ldm.modules.diffusionmodules.util import timestep_embedding
from plans import pairs
from unets import inputs, tiny_unet, uniform_timesteps

from hidiffusion_ext.core import Family, Run, Schedule, hidiffusion, make_plan, map_unet
from hidiffusion_ext.core.control import fit_residuals
from hidiffusion_ext.core.options import Options
from hidiffusion_ext.core.sizes import FeatureSizes, Sizing, feature_sizes
from ldm_unet import LdmUNet

STEPS = 10
LATENT = (16, 16)
Control = dict[str, list[torch.Tensor | None]]


class ControlledUNet(LdmUNet):
    """A UNet that takes residuals from the ends of the host's lists and adds them; another size is an error."""

    def forward(self, x, timesteps=None, context=None, control: Control | None = None, **kwargs) -> torch.Tensor:
        context, skips = [context] * 10, []
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels))

        def add(features: torch.Tensor, name: str) -> torch.Tensor:
            residual = control[name].pop() if control and control.get(name) else None
            if residual is None:
                return features
            assert residual.shape == features.shape
            return features + residual

        for block in self.input_blocks:
            x = add(block(x, emb, context), "input")
            skips.append(x)
        x = add(self.middle_block(x, emb, context), "middle")
        for block in self.output_blocks:
            x = block(torch.cat([x, add(skips.pop(), "output")], dim=1), emb, context)
        return self.out(x)


def controlled_unet(family: Family) -> ControlledUNet:
    unet = tiny_unet(family)
    unet.__class__ = ControlledUNet
    return unet


def residuals(unet: ControlledUNet, sizes: FeatureSizes, seed: int = 0) -> Control:
    """Residuals for every place of a UNet in which the features have the given sizes."""
    generator = torch.Generator().manual_seed(seed)
    shapes: list[tuple[int, ...]] = []
    handles = [
        block.register_forward_hook(lambda module, args, output: shapes.append(output.shape[:2]))
        for block in unet.input_blocks
    ]
    call(unet, None)
    for handle in handles:
        handle.remove()

    def made(places: list[int]) -> list[torch.Tensor | None]:
        return [torch.randn(*shapes[i], *sizes.skips[i], generator=generator) for i in places]

    places = [*range(len(shapes))]
    return {"input": made(places[::-1]), "middle": made(places[-1:]), "output": made(places)}


def copied(control: Control) -> Control:
    return {name: list(own) for name, own in control.items()}


def call(unet: ControlledUNet, control: Control | None, step: int = 0, latent: tuple[int, int] = LATENT) -> Any:
    x, context = inputs(latent)
    with torch.inference_mode():
        return unet(x, torch.tensor([uniform_timesteps(STEPS)[step]]), context=context, control=control)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("preset", ["2x", "4x"])
def test_every_residual_meets_its_features_while_raunet_is_active(family: Family, preset: str) -> None:
    unet = controlled_unet(family)
    plan = make_plan(Options.from_mapping({"native_size": 8, "preset": preset}), map_unet(unet), LATENT)
    made = residuals(unet, plan.sizes())
    expected_unpatched = call(unet, copied(made), STEPS - 1)
    schedule = Schedule(uniform_timesteps(STEPS))
    due = [tuple(step in schedule.steps_inside(pair.span) for pair in pairs(plan)) for step in range(STEPS)]
    for step, inside in enumerate(plan.phases(schedule)):
        if step and due[step] == due[step - 1]:
            continue
        strided, pooled = due[step]
        own = copied(made)
        run = Run(schedule)
        with hidiffusion(unet, plan, run):
            got = call(unet, own, step)
            fitted = fit_residuals(made, plan.sizes(inside))
            assert torch.equal(call(unet, copied(fitted), step), got)
            assert not torch.equal(call(unet, None, step), got)
        if strided or pooled:
            assert own == made  # the host's lists still hold what they held
        else:
            assert own == {"input": [], "middle": [], "output": []}  # used by the UNet itself, as without us
    assert torch.equal(call(unet, copied(made), STEPS - 1), expected_unpatched)


def test_calls_of_another_size_keep_their_residuals() -> None:
    unet = controlled_unet(Family.SD1)
    plan = make_plan(Options.from_mapping({"native_size": 8, "preset": "2x"}), map_unet(unet), LATENT)
    tile = (8, 8)
    made = residuals(unet, feature_sizes(plan.unet, Sizing(tile)))
    expected = call(unet, copied(made), latent=tile)
    with hidiffusion(unet, plan, Run(Schedule(uniform_timesteps(STEPS)))):
        assert torch.equal(call(unet, copied(made), latent=tile), expected)


def test_lists_are_used_from_their_ends() -> None:
    sizes = FeatureSizes(inside=((8, 8), (4, 4), (2, 1)), skips=((8, 8), (4, 4), (2, 1)))
    sixteen = torch.randn(1, 2, 16, 16)
    right = torch.randn(1, 2, 8, 8)
    control = {"input": [sixteen, right], "middle": [sixteen, None], "output": [None, sixteen], "other": [sixteen]}
    before = copied(control)
    fitted = fit_residuals(control, sizes)
    assert fitted["input"][0].shape[-2:] == (4, 4)
    assert fitted["input"][1] is right
    assert fitted["middle"] == [None]
    assert fitted["output"][0] is None
    assert fitted["output"][1].shape[-2:] == (2, 1)
    assert fitted["other"] is control["other"]
    assert control == before
