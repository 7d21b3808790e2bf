"""Noise-damped guidance in the host's own guidance: every way in which that batches, splits, weighs and skips."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from damping import damped, set_wanted
from torch import nn

from hidiffusion_ext.core import Need, Run, Schedule
from hidiffusion_ext.hosts import guiding
from hidiffusion_ext.hosts.guidance import changed_guidance
from hidiffusion_ext.hosts.guiding import SamplerKind
from modules import prompt_parser, script_callbacks, sd_samplers_cfg_denoiser, shared

SCALE = 5.0
PROMPTS = {
    "plain": ["a cat", "a dog"],
    "weighted": ["a cat AND a dog :0.5", "a bird :2"],
    "unequal": ["a cat " * 60, "a dog " * 60],
    "unequal and weighted": ["a cat " * 60 + "AND a dog " * 60 + ":-0.5", "a bird " * 60],
}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"batch_cond_uncond": False},
    {"pad_cond_uncond": True},
    {"pad_cond_uncond": True, "batch_cond_uncond": False},
]


def unguarded(make: Callable[[], torch.Tensor], unchanged: torch.Tensor) -> torch.Tensor:
    return make()


class Model(nn.Module):
    """Stands for k-diffusion's wrapper around the model; its answers are easy to foresee, row by row.

    Attributes:
        rows: (x, sigma, context, image) of all rows of the host's own evaluations, in order.
        base_rows: How many rows the base evaluations had.
        dilated: Whether the base evaluations answer otherwise.
        wanted: Whether evaluations from sigma 1 on want noise-damped guidance.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.rows: list[tuple[torch.Tensor, ...]] = []
        self.base_rows = 0
        self.dilated = self.wanted = True

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, cond: dict[str, Any]) -> torch.Tensor:
        set_wanted(self.run, self.wanted and float(sigma.max()) >= 1)
        if self.run.is_base:
            self.base_rows += len(x)
        else:
            self.rows += zip(x, sigma, cond["c_crossattn"][0], cond["c_concat"][0])
        return answer(x, sigma, cond, base=self.run.is_base and self.dilated)


def answer(x: torch.Tensor, sigma: torch.Tensor, cond: dict[str, Any], *, base: bool) -> torch.Tensor:
    (context,), (image,) = cond["c_crossattn"], cond["c_concat"]
    said = context.double().mean((1, 2)) + image.mean((1, 2, 3))
    strong = x * said[:, None, None, None] / sigma[:, None, None, None]
    return strong + x.square() + said[:, None, None, None].cos() if base else strong


class Denoiser(sd_samplers_cfg_denoiser.CFGDenoiser):
    """The host's denoiser around that model."""

    model: Model

    @property
    def inner_model(self) -> Model:
        return self.model


class Evaluation:
    """One evaluation of a pass of two pictures.

    Attributes:
        model: The model.
        ordinary: The result of ordinary guidance on the strong answers.
        guided: The result under `changed_guidance`.
        expected: The formula's.
    """

    def __init__(self, prompts: list[str], *, wanted: bool = True, dilated: bool = True, scale: float = SCALE) -> None:
        run = Run(Schedule([999.0]))
        self.model = Model(run)
        self.model.dilated, self.model.wanted = dilated, wanted
        sampler: Any = SimpleNamespace(sampler_extra_args={}, last_latent=None)
        denoiser = sampler.model_wrap_cfg = Denoiser(sampler)
        denoiser.model = self.model
        denoiser.total_steps = 10
        denoiser.p = SimpleNamespace(
            refiner_checkpoint_info=None, refiner_switch_at=None, scripts=None, extra_generation_params={}
        )
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 4, 3, 5, generator=generator).double()
        sigma, image = torch.tensor([2.0, 3.0]).double(), torch.randn(2, 5, 1, 1, generator=generator).double()
        texts, negative = (prompt_parser.SdConditioning(t, width=64, height=64) for t in (prompts, ["", "ugly"]))
        conds = prompt_parser.get_multicond_learned_conditioning(shared.sd_model, texts, 10)
        uncond = prompt_parser.get_learned_conditioning(shared.sd_model, negative, 10)
        arguments = (x, sigma, uncond, conds, scale, 0.0, image)
        self.ordinary = denoiser(*arguments)
        attributes = dict(vars(denoiser))
        denoiser.step = 0
        with changed_guidance(sampler, run, [damped(run)], unguarded):
            self.guided = denoiser(*arguments)
        attributes["step"] = denoiser.step
        assert vars(denoiser) == attributes
        assert not self.model._forward_hooks
        x, sigma, context, image = (torch.stack(values) for values in zip(*self.model.rows[-2:]))
        cond = {"c_crossattn": [context], "c_concat": [image]}
        strong, base = (answer(x, sigma, cond, base=base) for base in (False, True))
        self.expected = self.ordinary + (base - strong)


@pytest.fixture(params=SETTINGS, ids=str)
def host_settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in request.param.items():
        monkeypatch.setitem(shared.opts.data, name, value)


@pytest.mark.usefixtures("host_settings")
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=list(PROMPTS))
def test_it_is_the_formula_with_one_more_evaluation_of_the_unconditional_rows(prompts: list[str]) -> None:
    evaluation = Evaluation(prompts)
    torch.testing.assert_close(evaluation.guided, evaluation.expected)
    assert evaluation.model.base_rows == 2
    assert not torch.allclose(evaluation.guided, evaluation.ordinary)


@pytest.mark.usefixtures("host_settings")
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=list(PROMPTS))
def test_a_base_like_the_strong_evaluation_is_ordinary_guidance_to_the_bit(prompts: list[str]) -> None:
    evaluation = Evaluation(prompts, dilated=False)
    assert torch.equal(evaluation.guided, evaluation.ordinary)
    assert evaluation.model.base_rows == 2


def test_steps_that_do_not_want_it_cost_nothing() -> None:
    evaluation = Evaluation(PROMPTS["plain"], wanted=False)
    assert torch.equal(evaluation.guided, evaluation.ordinary)
    assert evaluation.model.base_rows == 0


def test_without_guidance_there_is_nothing_to_damp(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = Evaluation(PROMPTS["plain"], scale=1.0)
    assert torch.equal(evaluation.guided, evaluation.ordinary)
    assert evaluation.model.base_rows == 0
    monkeypatch.setitem(shared.opts.data, "skip_early_cond", 1.0)
    evaluation = Evaluation(PROMPTS["plain"])
    assert torch.equal(evaluation.guided, evaluation.ordinary)
    assert evaluation.model.base_rows == 0


def test_instruct_pix2pix() -> None:
    """Its denoiser evaluates three rows per picture and combines them in a method of its own."""
    run = Run(Schedule([999.0]))
    set_wanted(run, True)
    model = Model(run)
    x, sigma = torch.randn(6, 4, 3, 5).double(), torch.ones(6).double()
    context, image = torch.randn(6, 7, 8).double(), torch.randn(6, 5, 1, 1).double()
    cond = {"c_crossattn": [context], "c_concat": [image]}

    class EditDenoiser:
        inner_model = model

        def evaluate(self) -> torch.Tensor:
            return self.combine_denoised_for_edit_model(self.inner_model(x, sigma, cond=cond), SCALE)

        def combine_denoised(self) -> None:
            """For other models."""

        def combine_denoised_for_edit_model(self, rows: torch.Tensor, scale: float) -> torch.Tensor:
            out_cond, out_image, out_uncond = rows.chunk(3)
            return out_uncond + scale * (out_cond - out_image) + 1.5 * (out_image - out_uncond)

    denoiser = EditDenoiser()
    with changed_guidance(SimpleNamespace(model_wrap_cfg=denoiser), run, [damped(run)], unguarded):
        guided = denoiser.evaluate()
    difference = answer(x, sigma, cond, base=True) - answer(x, sigma, cond, base=False)
    torch.testing.assert_close(guided, denoiser.evaluate() + difference[-2:])
    assert vars(denoiser) == {}


@pytest.mark.usefixtures("host_settings")
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=list(PROMPTS))
def test_rows_that_others_evaluate_are_not_taken_for_the_denoisers(prompts: list[str]) -> None:
    """As with self-attention guidance, which is handed the model after the denoiser's own calls."""

    def once_more(params: Any) -> None:
        x, sigma = torch.ones(2, 4, 3, 5).double(), torch.full((2,), 0.5).double()
        cond = {"c_crossattn": [torch.ones(2, 7, 8)], "c_concat": [torch.ones(2, 5, 1, 1)]}
        params.inner_model(x, sigma, cond=cond)
        del params.inner_model.rows[-2:]

    script_callbacks.on_cfg_denoised(once_more)
    try:
        evaluation = Evaluation(prompts)
    finally:
        script_callbacks.callback_map["callbacks_cfg_denoised"].pop()
    torch.testing.assert_close(evaluation.guided, evaluation.expected)
    assert evaluation.model.base_rows == 2


@pytest.mark.parametrize(
    "other",
    [
        {"s_min_uncond": 0.5},
        {"sd_model": SimpleNamespace(cond_stage_key="edit")},
        {"sampler": SimpleNamespace(model_wrap_cfg=SimpleNamespace(combine_denoised=len))},
        {
            "sd_model": SimpleNamespace(
                forge_objects=SimpleNamespace(unet=SimpleNamespace(model_options={"sampler_post_cfg_function": [len]}))
            )
        },
    ],
)
def test_where_others_say_what_is_guided_guidance_is_not_left_out(other: dict[str, Any]) -> None:
    job = {"sd_model": SimpleNamespace(), "sampler": None, "s_min_uncond": 0.0, "cfg_scale": 5.0}

    def is_held(**changed: Any) -> bool:
        found = guiding.conflicts(SimpleNamespace(**{**job, **changed}), SamplerKind.of(None), hires=False)
        return any(Need.INTERVAL in each.held for each in found)

    assert is_held(**other)
    assert not is_held()
