"""Noise-damped guidance in the Forge family's guidance, re-enacted as far as it matters."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from damping import damped, set_wanted

from hidiffusion_ext.core import Run, Schedule
from hidiffusion_ext.hosts.guidance import changed_guidance

SCALE = 5.0
COND, UNCOND = 0, 1


def unguarded(make: Callable[[], torch.Tensor], unchanged: torch.Tensor) -> torch.Tensor:
    return make()


class Model:
    """Stands for the host's model: answers are easy to foresee, row by row.

    Attributes:
        evaluations: For each evaluation whether it was the base one, and what its rows were (COND, UNCOND).
        dilated: Whether the base evaluation answers otherwise.
    """

    def __init__(self, run: Run, *, dilated: bool = True) -> None:
        self.run, self.dilated = run, dilated
        self.evaluations: list[tuple[bool, list[int]]] = []

    def __call__(self, x: torch.Tensor, said: torch.Tensor, kinds: list[int]) -> torch.Tensor:
        self.evaluations.append((self.run.is_base, kinds))
        return answer(x, said, base=self.run.is_base and self.dilated)


def answer(x: torch.Tensor, said: torch.Tensor, *, base: bool) -> torch.Tensor:
    strong = x * said[:, None, None, None]
    return strong + x.square() if base else strong


def calc_cond_uncond_batch(
    model: Model, cond: list[Any], uncond: list[Any] | None, x: torch.Tensor, sigma: Any, options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted mean of the conditions' evaluations, and of the unconditional one; zeros for none."""
    rows = [*((c, COND) for c in cond), *((c, UNCOND) for c in uncond or [])]
    said = torch.cat([c["said"] for c, _ in rows])
    answers = model(torch.cat([x] * len(rows)), said, [kind for _, kind in rows]).chunk(len(rows))
    results = []
    for wanted in (COND, UNCOND):
        total, weight = torch.zeros_like(x), torch.full_like(x, 1e-37)
        for (c, kind), got in zip(rows, answers):
            if kind == wanted:
                total += got * c.get("strength", 1)
                weight += c.get("strength", 1)
        results.append(total / weight)
    return results[0], results[1]


def guide(
    model: Model, x: torch.Tensor, cond: list[Any], uncond: list[Any], scale: float, options: dict[str, Any]
) -> torch.Tensor:
    """Classifier-free guidance, then the functions that were asked for."""
    evaluated = None if math.isclose(scale, 1) else uncond
    out_cond, out_uncond = calc_cond_uncond_batch(model, cond, evaluated, x, 1.0, options)
    strength = sum(c.get("strength", 1) for c in cond)
    result = out_uncond + (out_cond - out_uncond) * scale * strength
    for function in options.get("sampler_post_cfg_function", []):
        result = function(
            {
                "denoised": result,
                "cond": cond,
                "uncond": uncond,
                "model": model,
                "uncond_denoised": out_uncond,
                "cond_denoised": out_cond,
                "sigma": 1.0,
                "model_options": options,
                "input": x,
            }
        )
    return result


@pytest.fixture(autouse=True, params=["backend.sampling.sampling_function", "ldm_patched.modules.samplers"])
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(calc_cond_uncond_batch=calc_cond_uncond_batch)
    monkeypatch.setitem(sys.modules, request.param, module)


def conds(*strengths: float) -> list[dict[str, Any]]:
    return [{"said": torch.randn(2).double(), "strength": strength} for strength in strengths]


class Evaluation:
    """One evaluation of two pictures: plain, damped, and what the formula says."""

    def __init__(
        self, *strengths: float, wanted: bool = True, dilated: bool = True, scale: float = SCALE, options: Any = None
    ) -> None:
        options = {} if options is None else options
        before = copy.copy(options)
        run = Run(Schedule([999.0]))
        set_wanted(run, wanted)
        self.model = Model(run, dilated=dilated)
        x, cond, uncond = torch.randn(2, 4, 3, 5).double(), conds(*strengths), conds(1.0)
        del uncond[0]["strength"]
        self.plain = guide(self.model, x, cond, uncond, scale, options)
        self.model.evaluations.clear()
        patcher = SimpleNamespace(model_options=options)
        forge = SimpleNamespace(forge_objects=SimpleNamespace(unet=patcher))
        sampler = SimpleNamespace(model_wrap_cfg=SimpleNamespace(inner_model=SimpleNamespace(inner_model=forge)))
        with changed_guidance(sampler, run, [damped(run)], unguarded):
            assert options["sampler_post_cfg_function"] is not before.get("sampler_post_cfg_function")
            self.guided = guide(self.model, x, cond, uncond, scale, options)
        assert options == before
        self.bases = [kinds for is_base, kinds in self.model.evaluations if is_base]
        self.difference = answer(x, uncond[0]["said"], base=True) - answer(x, uncond[0]["said"], base=False)


@pytest.mark.parametrize("strengths", [(1.0,), (1.0, 0.5), (0.7, -0.2, 1.5)])
def test_it_is_the_formula_with_one_more_evaluation_of_the_unconditional_rows(strengths: tuple[float, ...]) -> None:
    evaluation = Evaluation(*strengths)
    torch.testing.assert_close(evaluation.guided, evaluation.plain + evaluation.difference)
    assert evaluation.bases == [[UNCOND]]


def test_a_base_like_the_strong_evaluation_is_ordinary_guidance_to_the_bit() -> None:
    evaluation = Evaluation(1.0, dilated=False)
    assert torch.equal(evaluation.guided, evaluation.plain)
    assert evaluation.bases == [[UNCOND]]


@pytest.mark.parametrize("changes", [{"wanted": False}, {"scale": 1.0}], ids=["other steps", "no guidance"])
def test_where_there_is_nothing_to_damp_nothing_is_evaluated(changes: dict[str, Any]) -> None:
    evaluation = Evaluation(1.0, **changes)
    assert torch.equal(evaluation.guided, evaluation.plain)
    assert evaluation.bases == []


def test_functions_of_others_come_after_and_stay() -> None:
    doubled = {"sampler_post_cfg_function": [lambda args: args["denoised"] * 2]}
    evaluation = Evaluation(1.0, options=doubled)
    torch.testing.assert_close(evaluation.guided, evaluation.plain + 2 * evaluation.difference)


def test_the_list_is_restored_when_a_pass_ends_by_an_error() -> None:
    options: dict[str, Any] = {}
    forge = SimpleNamespace(forge_objects=SimpleNamespace(unet=SimpleNamespace(model_options=options)))
    sampler = SimpleNamespace(model_wrap_cfg=SimpleNamespace(inner_model=SimpleNamespace(inner_model=forge)))
    run = Run(Schedule([999.0]))
    with pytest.raises(KeyboardInterrupt), changed_guidance(sampler, run, [damped(run)], unguarded):
        raise KeyboardInterrupt
    assert options == {}


@pytest.mark.parametrize("missing", ["uncond_denoised", "uncond"])
def test_an_unconditional_result_that_is_none_is_no_guidance(missing: str) -> None:
    options: dict[str, Any] = {}
    forge = SimpleNamespace(forge_objects=SimpleNamespace(unet=SimpleNamespace(model_options=options)))
    sampler = SimpleNamespace(model_wrap_cfg=SimpleNamespace(inner_model=SimpleNamespace(inner_model=forge)))
    run = Run(Schedule([999.0]))
    set_wanted(run, True)
    result = torch.randn(2, 4, 3, 5)
    args = {"denoised": result, "uncond_denoised": result, "uncond": conds(1.0), missing: None}
    with changed_guidance(sampler, run, [damped(run)], unguarded):
        (function,) = options["sampler_post_cfg_function"]
        assert function(args) is result


def test_what_fails_in_the_function_is_tried_by_who_guards_it() -> None:
    options: dict[str, Any] = {}
    forge = SimpleNamespace(forge_objects=SimpleNamespace(unet=SimpleNamespace(model_options=options)))
    sampler = SimpleNamespace(model_wrap_cfg=SimpleNamespace(inner_model=SimpleNamespace(inner_model=forge)))
    run, guided = Run(Schedule([999.0])), torch.randn(2, 4, 3, 5)

    def guard(make: Callable[[], torch.Tensor], unchanged: torch.Tensor) -> torch.Tensor:
        with pytest.raises(KeyError):
            make()
        return unchanged

    with changed_guidance(sampler, run, [damped(run)], guard):
        assert options["sampler_post_cfg_function"][0]({"denoised": guided}) is guided
