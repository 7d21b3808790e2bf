"""DeepCache: which calls compute the finest level alone, over what, and that a row's answer is its own."""

from __future__ import annotations

import pytest
import torch
from plans import held
from snapshot import snapshot
from torch import nn
from unets import inputs, tiny_unet

from hidiffusion_ext.core import (
    Family,
    Method,
    Need,
    Options,
    Plan,
    Run,
    Schedule,
    Situation,
    hidiffusion,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.cost import count
from hidiffusion_ext.core.options import FasterSecondPass
from hidiffusion_ext.core.parts.deep_cache import DeepCache, identities, over_kept
from hidiffusion_ext.core.schedule import DISCRETE
from hidiffusion_ext.core.words import describe

UNETS = {family: tiny_unet(family) for family in Family}
UNET = UNETS[Family.SD1]
LATENT = (16, 16)
SHARES = [0.54, 0.45, 0.35, 0.26, 0.18, 0.11, 0.06, 0.02]
"""Of the noise's variance in the steps of a second pass, evenly spaced."""


def timestep(share: float) -> float:
    """Where the noise has that share of the variance."""
    return float(round(DISCRETE.at_sigma((share / (1 - share)) ** 0.5)))


SCHEDULE = Schedule([timestep(share) for share in SHARES])
FRESH, OVER = SCHEDULE.timesteps[0], SCHEDULE.timesteps[1]


def plan_of(unet: nn.Module = UNET, **options: object) -> Plan:
    asked = {"native_size": 64, "msw_msa": False, "faster_second_pass": FasterSecondPass.DEEP_CACHE, **options}
    return make_plan(Options.from_mapping(asked), map_unet(unet), LATENT, Situation(over_picture=True))


def call(unet: nn.Module, x: torch.Tensor, at: float, text: torch.Tensor) -> torch.Tensor:
    y = {"y": torch.ones(len(x), unet.label_emb[0][0].in_features)} if hasattr(unet, "label_emb") else {}
    return unet(x, torch.full((len(x),), at), context=text, **y)


def test_what_is_kept_lasts_as_long_as_the_noise_is_nearly_the_same() -> None:
    part = plan_of().part(DeepCache)
    assert part
    assert over_kept(SCHEDULE, part.span) == [1, 3, 5, 6]
    karras = [timestep(sigma**2 / (1 + sigma**2)) for sigma in (1.01, 0.63, 0.37, 0.21, 0.12, 0.06)]
    assert len(over_kept(Schedule(karras), part.span)) == 2
    from_noise = Schedule([999.0 - 20 * step for step in range(50)])
    first = over_kept(from_noise, part.span)[0]
    assert DISCRETE.sigma(from_noise.timesteps[first]) < 1.25


@pytest.mark.parametrize("family", Family)
@torch.no_grad()
def test_a_call_over_it_is_the_finest_level_alone_over_the_deeper_ones_of_before(family: Family) -> None:
    unet, (x, text) = UNETS[family], inputs(LATENT, batch=2)
    last = unet.get_submodule(map_unet(unet).deep_blocks[-1].layers[-1])
    kept: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda module, args, output: kept.append(output))
    call(unet, x, FRESH, text)
    hook.remove()
    hook = last.register_forward_hook(lambda module, args, output: kept[0])
    expected = call(unet, x, OVER, text)
    hook.remove()
    run = Run(SCHEDULE)
    before = snapshot(unet)
    with hidiffusion(unet, plan_of(unet), run):
        fresh = call(unet, x, FRESH, text)
        over = call(unet, x, OVER, text)
    assert snapshot(unet) == before
    assert torch.equal(fresh, call(unet, x, FRESH, text))
    torch.testing.assert_close(over, expected)
    assert not torch.allclose(over, call(unet, x, OVER, text))
    assert run.done.least == {DeepCache.name: OVER}


@torch.no_grad()
def test_rows_are_kept_one_by_one_however_they_are_put_together() -> None:
    """With guidance in one call, in two, in the other order, and without it in the end."""
    (x, text), (other, _) = inputs(LATENT, batch=4), inputs(LATENT, batch=4, seed=1)
    text[1] = text[0]  # two pictures of one prompt

    def answers(*calls: list[int]) -> torch.Tensor:
        found = torch.zeros_like(x)
        with hidiffusion(UNET, plan_of(), Run(SCHEDULE)):
            call(UNET, x, FRESH, text)
            for rows in calls:
                found[rows] = call(UNET, other[rows], OVER, text[rows])
        return found

    together = answers([0, 1, 2, 3])
    torch.testing.assert_close(answers([0, 1], [2, 3]), together)
    torch.testing.assert_close(answers([3, 0, 2, 1]), together)
    torch.testing.assert_close(answers([0, 1])[:2], together[:2])


@torch.no_grad()
def test_a_row_with_another_prompt_is_computed_and_others_go_on() -> None:
    x, text = inputs(LATENT, batch=2)
    edited = text.clone()
    edited[1] += 1
    with hidiffusion(UNET, plan_of(), Run(SCHEDULE)):
        call(UNET, x, FRESH, text)
        expected = call(UNET, x, OVER, text)[:1]
    with hidiffusion(UNET, plan_of(), Run(SCHEDULE)):
        call(UNET, x, FRESH, text)
        found = call(UNET, x, OVER, edited)
    torch.testing.assert_close(found[:1], expected)
    torch.testing.assert_close(found[1:], call(UNET, x, OVER, edited)[1:])


@torch.no_grad()
def test_it_is_forgotten_with_other_weights_and_kept_over_calls_of_another_size() -> None:
    x, text = inputs(LATENT)
    tile, _ = inputs((8, 8))
    conv = UNET.get_submodule(map_unet(UNET).inputs[1].convs[0])
    run = Run(SCHEDULE)
    with hidiffusion(UNET, plan_of(), run):
        call(UNET, x, FRESH, text)
        assert torch.equal(call(UNET, tile, OVER, text), _unpatched(tile, text))
        call(UNET, x, OVER, text)
        assert DeepCache.name in run.done.least
        run.done.least.clear()
        conv.network_current_names = (("a LoRA", 1.0),)
        try:
            answer = call(UNET, x, OVER, text)
        finally:
            del conv.network_current_names
    assert not run.done.least
    torch.testing.assert_close(answer, call(UNET, x, OVER, text))


_REFERENCE = tiny_unet(Family.SD1)


def _unpatched(x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """The answer of the same UNet, made once more."""
    return call(_REFERENCE, x, OVER, text)


@torch.no_grad()
def test_where_the_layers_change_size_or_shape_nothing_is_kept() -> None:
    """RAU-Net in the first step, deeper levels from the second on: they are computed anew at the threshold."""
    x, text = inputs(LATENT)
    plan = plan_of(t1=1 - (SCHEDULE.timesteps[0] + SCHEDULE.timesteps[1]) / 2000)
    run = Run(SCHEDULE)
    with hidiffusion(UNET, plan, run):
        call(UNET, x, FRESH, text)
        assert run.sizes
        assert run.sizes.changed
        second = call(UNET, x, OVER, text)
        call(UNET, x, SCHEDULE.timesteps[2], text)
    torch.testing.assert_close(second, call(UNET, x, OVER, text))
    assert run.done.most[DeepCache.name] == SCHEDULE.timesteps[2]


@torch.no_grad()
def test_the_last_step_is_whole() -> None:
    x, text = inputs(LATENT)
    ends = Schedule([FRESH, OVER])
    assert over_kept(ends, plan_of().part(DeepCache).span) == []
    with hidiffusion(UNET, plan_of(), Run(ends)):
        call(UNET, x, FRESH, text)
        last = call(UNET, x, OVER, text)
    assert torch.equal(last, call(UNET, x, OVER, text))


@torch.no_grad()
def test_only_what_the_last_step_used_is_kept() -> None:
    x, text = inputs(LATENT, batch=4)
    near = Schedule([350.0, 349.0, 348.0, 347.0, 346.0])
    run = Run(near)
    with hidiffusion(UNET, plan_of(), run):
        call(UNET, x, 350.0, text)
        call(UNET, x[:2], 349.0, text[:2])
        call(UNET, x[:2], 348.0, text[:2])
        again = call(UNET, x[2:], 347.0, text[2:])
        over = call(UNET, x[:2], 347.0, text[:2])
    torch.testing.assert_close(again, call(UNET, x[2:], 347.0, text[2:]))
    assert not torch.allclose(over, call(UNET, x[:2], 347.0, text[:2]))


def test_what_it_saves_is_counted() -> None:
    shares = count(plan_of(), SCHEDULE).shares
    assert all(shares[step] < 0.6 * shares[0] for step in (1, 3, 5, 6))
    assert shares[0] == shares[2] == shares[4] == 1


def test_it_gives_way_first_and_to_whoever_needs_the_layers() -> None:
    options = Options(native_size=64, faster_second_pass=FasterSecondPass.DEEP_CACHE)
    both = make_plan(options, map_unet(UNET), (32, 32), Situation(over_picture=True))
    assert DeepCache.name in both.names
    less = both.lesser(both.parts)
    assert less
    assert less.parts == tuple(part for part in both.parts if part.name != DeepCache.name)
    early = both.lesser([part for part in both.parts if part.name != DeepCache.name])
    assert early
    assert DeepCache.name in early.names
    others = Situation(over_picture=True, conflicts=held(Need.LAYERS))
    plan = make_plan(options, map_unet(UNET), LATENT, others)
    assert plan.part(DeepCache) is None
    assert [each.name for each in plan.left_out] == [DeepCache.name]


def test_it_is_for_passes_over_a_picture_and_for_relay() -> None:
    for method in Method:
        plan = make_plan(Options(native_size=64, method=method), map_unet(UNET), LATENT)
        assert (DeepCache.name in plan.names) == (method is Method.RELAY)
    over_picture = Situation(over_picture=True)
    assert DeepCache.name in make_plan(Options(native_size=64), map_unet(UNET), LATENT, over_picture).names
    off = Options(native_size=64, faster_second_pass=FasterSecondPass.OFF)
    assert DeepCache.name not in make_plan(off, map_unet(UNET), LATENT, over_picture).names


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_identities_are_those_of_single_rows(dtype: torch.dtype) -> None:
    x, text = inputs(LATENT, batch=4)
    text = text.to(dtype)
    text[3] = text[0]
    small = torch.ones(4, 3, dtype=dtype)
    small[1, 2] = 2
    found = identities(x, [text, small])
    assert found is not None
    assert len({*found.tolist()}) == 3
    assert found[3] == found[0]
    for rows in ([1], [2, 1], [3, 2]):
        assert torch.equal(identities(x[rows], [text[rows], small[rows]]), found[rows])
    assert found[2] != identities(x, [text, small.flip(1)])[1]
    assert identities(x, [text[:1]]) is None


def test_it_is_told_where_it_worked() -> None:
    plan = plan_of(rau_net=False)
    assert describe(plan, SCHEDULE) == describe(plan) == "DeepCache"
    run = Run(SCHEDULE)
    x, text = inputs(LATENT)
    with torch.no_grad(), hidiffusion(UNET, plan, run):
        for step, at in enumerate(SCHEDULE.timesteps):
            call(UNET, x, at, text + step)
    assert "DeepCache" in describe(plan, SCHEDULE, done=run.done)
    assert not run.done.least
