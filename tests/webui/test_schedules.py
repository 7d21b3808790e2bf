"""The schedule of a pass from what a sampling function is called with, and a hires pass from its job: plain numbers."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hidiffusion_ext.core.schedule import DISCRETE
from hidiffusion_ext.hosts.schedules import (
    NothingSampled,
    hires_latent,
    hires_steps,
    in_hires_pass,
    pass_schedule,
    unipc_timesteps,
)


def timesteps(arguments: dict[str, Any], func: Any = None) -> list[float]:
    """Those of a pass by a model whose UNet is given a hundred times sigma."""
    model = SimpleNamespace(sigmas=torch.arange(1.0, 6.0), sigma_to_t=lambda sigmas: sigmas * 100)
    sampler = SimpleNamespace(func=func, model_wrap=model, model_wrap_cfg=SimpleNamespace(total_steps=3))
    return list(pass_schedule(sampler, arguments).timesteps)


def ddim(model: Any, x: Any, timesteps: Any) -> None:
    """The arguments of the host's."""


def unipc(model: Any, x: Any, timesteps: Any, is_img2img: bool = False) -> None:
    """The arguments of the host's."""


FALLING = torch.tensor([4.0, 2.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("churn", "expected"),
    [
        ({}, [400, 200, 100]),
        ({"s_churn": 0.3}, [440, 220, 110]),
        ({"s_churn": 3.0}, [400 * 2**0.5, 200 * 2**0.5, 100 * 2**0.5]),  # never more than that
        ({"s_churn": 0.3, "s_tmin": 2.0}, [440, 220, 100]),
        ({"s_churn": 0.3, "s_tmax": 2.0}, [400, 220, 110]),
        ({"s_churn": 0.3, "s_tmin": 1.5, "s_tmax": 3.0}, [400, 220, 100]),
    ],
)
@pytest.mark.parametrize("name", ["sigmas", "sigma_sched"])
def test_added_noise_is_in_the_schedule(name: str, churn: dict[str, float], expected: list[float]) -> None:
    assert timesteps({name: FALLING, **churn}) == pytest.approx(expected)


def test_where_only_the_ends_are_given_steps_are_even_in_the_logarithm_of_sigma() -> None:
    ends = {"sigma_min": torch.tensor(1.0), "sigma_max": 4.0}
    assert timesteps(ends) == pytest.approx([400, 200, 100])
    assert timesteps({**ends, "n": 2}) == pytest.approx([400, 100])


def test_samplers_over_timesteps_evaluate_all_but_the_first() -> None:
    assert timesteps({"timesteps": torch.tensor([1, 101, 201])}, ddim) == [201, 101]
    assert timesteps({"timesteps": torch.tensor([1, 101])}, unipc) == pytest.approx([999, 499.5])
    assert timesteps({"timesteps": torch.tensor([1, 101]), "is_img2img": True}, unipc) == pytest.approx([101, 50.5])


@pytest.mark.parametrize(
    ("arguments", "func"),
    [
        ({"sigmas": FALLING[:1]}, None),
        ({"timesteps": torch.tensor([1])}, ddim),
        ({"timesteps": torch.tensor([])}, unipc),
    ],
)
def test_a_pass_without_a_step_is_refused(arguments: dict[str, Any], func: Any) -> None:
    with pytest.raises(NothingSampled):
        timesteps(arguments, func)


def test_the_spacings_of_unipc() -> None:
    assert unipc_timesteps(599, 3, "time_uniform") == pytest.approx([599, 599 - 599 / 3, 599 / 3])
    assert unipc_timesteps(99, 2, "time_quadratic") == pytest.approx([99, 5.5**2 - 1])
    even = unipc_timesteps(500, 4, "logSNR")
    assert even[0] == pytest.approx(500)
    assert even == sorted(even, reverse=True)
    ratios = [math.log(1 / DISCRETE.noise(timestep) - 1) for timestep in [*even, 0]]
    assert torch.tensor(ratios).diff().tolist() == pytest.approx([(ratios[-1] - ratios[0]) / 4] * 4, rel=1e-2)


def test_a_job_in_its_hires_pass() -> None:
    job = SimpleNamespace(sampler_name="Euler", scheduler="Karras", hr_sampler_name=None, hr_scheduler=None, steps=20)
    second = in_hires_pass(job)
    assert (second.is_hr_pass, second.sampler_name, second.scheduler) == (True, "Euler", "Karras")
    assert not hasattr(job, "is_hr_pass")
    own = in_hires_pass(SimpleNamespace(**vars(job) | {"hr_sampler_name": "Heun", "hr_scheduler": "Beta"}))
    assert (own.sampler_name, own.scheduler) == ("Heun", "Beta")
    size = SimpleNamespace(hr_upscale_to_x=1024, hr_upscale_to_y=768, truncate_x=2, truncate_y=1)
    assert hires_latent(size) == (95, 126)
    for hires, steps in ((0, 20), (12, 12)):
        job.hr_second_pass_steps, job.denoising_strength = hires, 0.5
        assert hires_steps(job) == (2 * steps, steps - 1)
