"""The benchmark's own methods change what they should, and leave the UNet and the core as they were."""

from __future__ import annotations

import pytest
import torch
from unets import inputs, shared_unet, uniform_timesteps

from benchmarks.quality.deep_shrink import deep_shrink
from benchmarks.quality.methods import METHODS
from benchmarks.quality.spacings import SPACINGS
from demo_model import DemoModel
from hidiffusion_ext.core import Schedule, map_unet
from hidiffusion_ext.core.parts.damped_guidance import DampedGuidance
from hidiffusion_ext.core.parts.raunet import RAUNet

STEPS = 10
SIZES = [(32, 32), (24, 48), (48, 16)]


class TinyModel(DemoModel):
    """The demo model with a small random UNet in place of its weights."""

    def __init__(self) -> None:
        self.unet = shared_unet()
        self.unet_map = map_unet(self.unet)


@pytest.mark.parametrize("latent", SIZES)
def test_deep_shrink_works_at_a_lower_size_for_the_first_steps_only(latent: tuple[int, int]) -> None:
    unet = shared_unet()
    x, context = inputs(latent)
    timesteps = uniform_timesteps(STEPS)
    early, late = torch.tensor([timesteps[2]]), torch.tensor([timesteps[3]])
    direct = unet(x, early, context), unet(x, late, context)
    seen: list[torch.Size] = []
    handle = unet.input_blocks[4].register_forward_hook(lambda module, args, output: seen.append(output.shape[-2:]))
    with deep_shrink(unet, map_unet(unet), Schedule(timesteps)):
        shrunk = unet(x, early, context), unet(x, late, context)
    handle.remove()
    assert shrunk[0].shape == x.shape
    assert not torch.allclose(shrunk[0], direct[0])
    assert torch.equal(shrunk[1], direct[1])
    assert torch.equal(unet(x, early, context), direct[0])
    assert seen == [(latent[0] // 4, latent[1] // 4), (latent[0] // 2, latent[1] // 2)]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_and_leaves_the_unet_as_it_was(name: str) -> None:
    model = TinyModel()
    x, context = inputs((32, 32))
    timesteps = uniform_timesteps(STEPS)
    time = torch.tensor([timesteps[0]])
    before = model.unet(x, time, context)
    with METHODS[name](model, (256, 256), 0)(timesteps) as patched:
        inside = model.unet(x, time, context)
        assert bool(patched and patched.run.has(DampedGuidance)) == ("damped" in name)
    assert torch.equal(inside, before) == (name == "direct")
    assert torch.equal(model.unet(x, time, context), before)


@pytest.mark.parametrize("scheduler", SPACINGS)
def test_the_spacings_fall_from_the_first_to_the_last_timestep(scheduler: str) -> None:
    timesteps = SPACINGS[scheduler](STEPS, 999)
    assert timesteps == sorted(timesteps, reverse=True)
    assert (round(timesteps[0]), round(timesteps[-1])) == (999, 0)
    evenly = [999 * (1 - step / (STEPS - 1)) for step in range(STEPS)]
    assert max(abs(a - b) for a, b in zip(timesteps, evenly)) > 50


@pytest.mark.parametrize("scheduler", SPACINGS)
@pytest.mark.parametrize("first", [999, 300])
def test_hidiffusion_by_steps_has_raunet_in_the_papers_steps_on_any_schedule(scheduler: str, first: float) -> None:
    model = TinyModel()
    timesteps = SPACINGS[scheduler](STEPS, first)
    x, context = inputs((24, 24))
    with METHODS["HiDiffusion by steps"](model, (192, 192), 0)(timesteps) as patched:
        assert patched is not None
        active = [
            bool(model.unet(x, torch.tensor([t]), context) is not None and patched.run.has(RAUNet)) for t in timesteps
        ]
    assert active == [step < int(0.4 * STEPS) for step in range(STEPS)]
