"""Plans: the paper's tables, and when nothing is to be done."""

from __future__ import annotations

import pytest
from plans import held, pairs, stages
from unets import shared_unet, uniform_timesteps

from hidiffusion_ext.core import (
    Family,
    Method,
    Need,
    Options,
    Passes,
    Plan,
    Preset,
    Refused,
    Schedule,
    Situation,
    Span,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.cost import count
from hidiffusion_ext.core.native_first import first_size
from hidiffusion_ext.core.parts.raunet import RAUNet
from hidiffusion_ext.core.parts.redilation import Redilation
from hidiffusion_ext.core.parts.windows import MSWMSA
from hidiffusion_ext.core.sizes import Size
from hidiffusion_ext.core.words import describe

MAPS = {family: map_unet(shared_unet(family)) for family in Family}
INPAINTING = map_unet(shared_unet(Family.SDXL, in_channels=9))


def plan(family: Family, width: int, height: int, situation: Situation = Situation(), **options: object) -> Plan:
    return make_plan(Options.from_mapping(options), MAPS[family], (height // 8, width // 8), situation)


def steps(plan: Plan, total: int = 50) -> tuple[range, range]:
    schedule = Schedule(uniform_timesteps(total))
    return tuple(schedule.steps_inside(pair.span) for pair in pairs(plan))


@pytest.mark.parametrize("family", [Family.SD1, Family.SD2])
def test_sd_has_the_strided_pair_until_t1_and_the_pooled_pair_until_t2(family: Family) -> None:
    small, large = plan(family, 1024, 1024), plan(family, 2048, 2048)
    assert (small.preset, *steps(small)) == (Preset.X2, range(20), range(0))
    assert (large.preset, *steps(large)) == (Preset.X4, range(35), range(15))
    assert tuple(pair.block for pair in pairs(small)) == (3, 4)
    blocks = {(site.output, site.block) for site in small.part(MSWMSA).sites}
    assert blocks == {(False, 1), (False, 2), (True, 9), (True, 10), (True, 11)}


def test_sdxl_starts_aggressively_below_4x_and_stacks_the_pairs_at_4x() -> None:
    small, large = plan(Family.SDXL, 2048, 2048), plan(Family.SDXL, 4096, 4096)
    assert (small.preset, *steps(small)) == (Preset.X2, range(8), range(8, 20))
    assert (large.preset, *steps(large)) == (Preset.X4, range(15), range(35))
    assert tuple(pair.block for pair in pairs(small)) == (6, 4)
    blocks = {(site.output, site.block) for site in small.part(MSWMSA).sites}
    assert blocks == {(False, 4), (False, 5), (True, 3), (True, 4), (True, 5)}


def test_inpainting_and_playground_models_are_spared_the_aggressive_start() -> None:
    inpainting = make_plan(Options(), INPAINTING, (256, 256))
    playground = plan(Family.SDXL, 2048, 2048, Situation(playground=True))
    assert steps(inpainting) == steps(playground) == (range(0), range(20))


def test_turbo_has_the_pooled_pair_alone_and_is_native_at_512() -> None:
    turbo = plan(Family.SDXL, 1024, 1024, preset="Turbo")
    assert steps(turbo, 4) == (range(0), range(2))
    assert turbo.native == 512
    with pytest.raises(Refused, match="SDXL-Turbo, this model is SD1"):
        plan(Family.SD1, 1024, 1024, preset="Turbo")


@pytest.mark.parametrize("family", [Family.SD1, Family.SD2])
def test_between_2x_and_4x_auto_goes_by_the_smaller_side(family: Family) -> None:
    for side, t1, t2 in [(1024, 0.4, 0.0), (1280, 0.475, 0.075), (1536, 0.55, 0.15), (2048, 0.7, 0.3)]:
        made = plan(family, side, side + 512)
        assert (made.preset_t1, made.preset_t2) == pytest.approx((t1, t2))
        assert tuple(pair.span for pair in pairs(made)) == (Span(0, made.preset_t1), Span(0, made.preset_t2))
    assert plan(family, 1536, 1536).preset is Preset.AUTO
    assert plan(family, 1536, 1536, preset="2x").preset_t1 == 0.4
    assert plan(family, 1536, 1536, t2=0.5).part(RAUNet).pooled.span == Span(0, 0.5)


def test_one_small_side_is_enough_for_less_than_the_4x_preset() -> None:
    assert plan(Family.SD1, 2048, 2040).preset is Preset.AUTO
    assert plan(Family.SD1, 2048, 1024).preset is Preset.X2
    assert plan(Family.SDXL, 4096, 2048).preset is Preset.X2


@pytest.mark.parametrize(
    ("family", "width", "height", "active"),
    [
        (Family.SD1, 512, 512, False),
        (Family.SD1, 512, 768, False),
        (Family.SD1, 768, 768, True),
        (Family.SD1, 720, 1280, True),
        (Family.SDXL, 1024, 1024, False),
        (Family.SDXL, 1216, 832, False),
        (Family.SDXL, 1536, 1536, True),
    ],
)
def test_native_sizes_are_left_alone(family: Family, width: int, height: int, active: bool) -> None:
    made = plan(family, width, height)
    assert made.active is active
    assert active or f"{width}x{height}" in made.reason


def test_the_native_size_is_768_for_sd2_v_models_and_what_the_user_says_for_others() -> None:
    assert plan(Family.SD2, 768, 768).active
    assert not plan(Family.SD2, 768, 768, Situation(v_prediction=True)).active
    assert plan(Family.SD1, 256, 256, native_size=128).active
    assert not plan(Family.SD1, 1024, 1024, native_size=1024).active


def test_passes_choose_between_first_and_hires() -> None:
    for passes, hires, active in [
        (Passes.BOTH, False, True),
        (Passes.BOTH, True, True),
        (Passes.FIRST, False, True),
        (Passes.FIRST, True, False),
        (Passes.HIRES, False, False),
        (Passes.HIRES, True, True),
    ]:
        assert plan(Family.SD1, 1024, 1024, Situation(hires=hires), passes=passes.value).active is active


def test_switches_take_their_part_away() -> None:
    assert plan(Family.SD1, 1024, 1024, msw_msa=False).part(MSWMSA) is None
    assert steps(plan(Family.SD1, 1024, 1024, rau_net=False)) == (range(0), range(0))
    assert not plan(Family.SD1, 1024, 1024, rau_net=False, msw_msa=False).active


def test_a_threshold_given_replaces_the_presets_alone() -> None:
    assert steps(plan(Family.SD1, 1024, 1024, t1=0.5, t2=0.1)) == (range(25), range(5))
    assert steps(plan(Family.SD1, 2048, 2048, t1=0.5)) == (range(25), range(15))
    assert steps(plan(Family.SD1, 2048, 2048, t2=0.5)) == (range(35), range(25))
    assert steps(plan(Family.SDXL, 2048, 2048, t1=0.5)) == (range(8), range(8, 25))
    assert steps(plan(Family.SDXL, 2048, 2048, t1=0.1)) == (range(5), range(0))
    assert steps(plan(Family.SDXL, 2048, 2048, t1=0.5, t2=0.2)) == (range(10), range(25))
    redilated = plan(Family.SD1, 2048, 2048, method="ScaleCrafter", t1=0.5, preset="2x")
    assert redilated.part(Redilation).span == Span(0, 0.5)
    assert not redilated.part(Redilation).progressive


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("method", ["HiDiffusion", "Native first", "Relay"])
@pytest.mark.parametrize("preset", ["Auto", "2x", "4x"])
@pytest.mark.parametrize("t1", [0.05, 0.1, 0.25, 0.6])
def test_a_t1_below_the_presets_t2_ends_everything_there(family: Family, method: str, preset: str, t1: float) -> None:
    for side in (1600, 2048, 3072, 4096):
        found = plan(family, side, side, method=method, preset=preset, t1=t1)
        ends = [each.span.end for each in (*pairs(found), *stages(found))]
        assert max(ends) == t1
        assert found.preset_t2 <= t1
        own = plan(family, side, side, method=method, preset=preset, t1=t1, t2=0.7)
        ends = [each.span.end for each in (*pairs(own), *stages(own))]
        assert max(ends) == 0.7  # one's own T2 is left


@pytest.mark.parametrize("native", [1, 5, 7, 8, 10, 24, 63])
@pytest.mark.parametrize("latent", [(1, 2), (1, 40), (33, 47), (2000, 1), (128, 128)])
def test_any_native_size_has_a_plan(native: int, latent: Size) -> None:
    for method in Method:
        options = Options.from_mapping({"method": method.value, "native_size": native, "preset": "4x"})
        found = make_plan(options, MAPS[Family.SD1], latent)
        schedule = Schedule(uniform_timesteps(4))
        assert describe(found, schedule)
        assert all(share > 0 for share in count(found, schedule).shares)
        assert all(min(stage.latent) >= 1 for stage in stages(found))
    assert min(first_size(latent[1] * 8, latent[0] * 8, native)) >= 8


@pytest.mark.parametrize("t1", [0.0, 0.1, 0.5])
def test_more_of_t2_never_takes_anything_away_on_sdxl(t1: float) -> None:
    before = [set(found) for found in steps(plan(Family.SDXL, 2048, 2048, t1=t1))]
    for t2 in (0.05, 0.15, 0.3, 0.7, 1.0):
        after = [set(found) for found in steps(plan(Family.SDXL, 2048, 2048, t1=t1, t2=t2))]
        assert all(a >= b for a, b in zip(after, before))
        before = after


def test_the_presets_own_thresholds_are_told_beside_ones_own() -> None:
    for made, values in [
        (plan(Family.SD1, 1024, 1024, t1=0.9), (0.4, 0.0)),
        (plan(Family.SD1, 2048, 2048, t2=0.9), (0.7, 0.3)),
        (plan(Family.SDXL, 2048, 2048, Situation(controlnet=True)), (0.5, 0.0)),
        (plan(Family.SD1, 1024, 1024, method="ScaleCrafter", t1=0.9), (0.6, 0.0)),
        (plan(Family.SD1, 1024, 1024, rau_net=False), (0.4, 0.0)),
        (plan(Family.SD1, 2048, 2048, preset="2x"), (0.4, 0.0)),
        (plan(Family.SD1, 1024, 1024, preset="4x"), (0.7, 0.3)),
        (plan(Family.SD1, 2048, 2048, Situation(over_picture=True)), (0.4, 0.3)),
        (plan(Family.SDXL, 3072, 3072), (0.4, 0.0)),
        (plan(Family.SDXL, 4096, 4096, Situation(controlnet=True)), (0.7, 0.3)),
        (plan(Family.SDXL, 1024, 1024, preset="Turbo"), (0.5, 0.0)),
        (plan(Family.SDXL, 1024, 1024, Situation(over_picture=True), preset="Turbo"), (0.4, 0.0)),
        (plan(Family.SDXL, 4096, 4096, Situation(conflicts=held(Need.RESIZING))), (0.7, 0.3)),
    ]:
        assert (made.preset_t1, made.preset_t2) == values


def test_a_pass_that_begins_below_a_part_does_not_get_it() -> None:
    weak, strong = Schedule([300, 200, 100]), Schedule([800, 600.8, 450, 200])
    for method, part, last in (("HiDiffusion", RAUNet, 2), ("ScaleCrafter", Redilation, 3)):
        both = plan(Family.SD1, 1024, 1024, method=method)
        alone = plan(Family.SD1, 1024, 1024, method=method, msw_msa=False)
        assert [kind.name for kind in both.parts if kind.due(weak)] == [MSWMSA.name]
        assert (both.due(weak), alone.due(weak)) == (True, False)
        assert [strong.steps_inside(span) for span in both.part(part).spans if strong.steps_inside(span)] == [
            range(last)
        ]


@pytest.mark.parametrize("steps", [8, 10, 20, 25, 40, 50, 100])
@pytest.mark.parametrize("share", [0.16, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0])
def test_the_official_schedule_gets_the_official_steps_and_other_even_ones_at_most_one_more(
    steps: int, share: float
) -> None:
    official = int(steps * share + 1e-9)
    assert Schedule(uniform_timesteps(steps)).steps_inside(Span(0, share)) == range(official)
    ends_above_zero = [999 * (1 - step / steps) for step in range(steps)]
    to_zero = [999 * (1 - step / (steps - 1)) for step in range(steps)]
    for timesteps in (ends_above_zero, to_zero):
        found = len(Schedule(timesteps).steps_inside(Span(0, share)))
        whole = abs(steps * share - round(steps * share)) < 1e-9
        assert found - official in ((0,) if whole else (0, 1))


def test_a_controlnet_keeps_sdxl_in_its_first_phase_for_longer() -> None:
    guided = Situation(controlnet=True)
    assert steps(plan(Family.SDXL, 2048, 2048, guided)) == (range(8), range(8, 25))
    assert steps(plan(Family.SDXL, 4096, 4096, guided)) == steps(plan(Family.SDXL, 4096, 4096))
    assert steps(plan(Family.SDXL, 2048, 2048, guided, t1=0.3)) == (range(8), range(8, 15))
    assert steps(plan(Family.SD1, 1024, 1024, guided)) == steps(plan(Family.SD1, 1024, 1024))
