"""What each method plans at a size, what is left out of it, and which settings then have no effect."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plans import REASON, held, on_guidance, redilations, span_of, stages
from told import parts_of
from unets import shared_unet

from hidiffusion_ext.core import (
    Family,
    LeftOut,
    Method,
    Need,
    Options,
    Plan,
    Preset,
    Refused,
    Situation,
    Span,
    WindowShift,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.methods import without_effect
from hidiffusion_ext.core.native_first import MAKE_TWO
from hidiffusion_ext.core.parts.damped_guidance import DampedGuidance
from hidiffusion_ext.core.parts.redilation import Redilation
from hidiffusion_ext.core.parts.windows import MSWMSA
from hidiffusion_ext.core.schedule import DISCRETE

MAPS = {family: map_unet(shared_unet(family)) for family in Family}


def plan(family: Family, width: int, height: int, situation: Situation = Situation(), **options: object) -> Plan:
    return make_plan(Options.from_mapping(options), MAPS[family], (height // 8, width // 8), situation)


EVERYTHING = {"native_size": 64, "preset": "4x", "dispersion": True, "split_guidance": 2.0, "anchor": 0.5}


@pytest.mark.parametrize("method", Method)
def test_what_somebody_else_holds_leaves_out_what_needs_it_and_what_rests_on_that(method: Method) -> None:
    options = {**EVERYTHING, "method": method.value}
    whole = plan(Family.SD1, 256, 256, Situation(over_picture=True), **options)
    assert whole.left_out == ()
    for need in Need:
        found = plan(Family.SD1, 256, 256, Situation(over_picture=True, conflicts=held(need)), **options)
        needing = [part for part in whole.parts if need in part.needs]
        gone = {part.name for part in needing}
        assert found.parts == tuple(part for part in whole.parts if not {part.name, part.rests_on} & gone)
        told = [LeftOut(part.name, REASON) for part in needing if part.rests_on not in gone]
        assert list(found.left_out) == told
    assert {need for need in Need if whole.needing(need)} >= {Need.TOKENS, Need.RESIZING, Need.GUIDANCE, Need.CLEAN}


def test_of_several_reasons_the_first_is_told() -> None:
    conflicts = (*held(Need.RESIZING, reason="first"), *held(Need.FEATURES, Need.RESIZING, reason="second"))
    found = plan(Family.SD1, 1024, 1024, Situation(conflicts=conflicts))
    assert found.left_out == (LeftOut("RAU-Net", "first"),)


@pytest.mark.parametrize("hires", [False, True])
@pytest.mark.parametrize("method", Method)
def test_where_everything_is_left_out_the_reasons_are_told(method: Method, hires: bool) -> None:
    options = {"native_size": 64, "method": method.value}
    free = Situation(hires=hires, over_picture=hires)
    asked = [part for part in plan(Family.SD1, 256, 256, free, **options).parts if not part.rests_on]
    nothing_free = replace(free, conflicts=held(*Need))
    if hires and method in MAKE_TWO:  # the pass is there all the same
        told = plan(Family.SD1, 256, 256, nothing_free, **options).reason
    else:
        with pytest.raises(Refused) as refused:
            plan(Family.SD1, 256, 256, nothing_free, **options)
        told = str(refused.value)
    assert parts_of(told) == {part.name: REASON for part in asked}


def test_what_works_on_guidance_is_for_passes_over_a_picture() -> None:
    options = {"split_guidance": 2.0, "anchor": 0.5}
    first, second = (
        plan(Family.SD1, 1024, 1024, Situation(over_picture=over, unguided=frozenset({3})), **options)
        for over in (False, True)
    )
    assert (first.over_picture, *on_guidance(first)) == (False, 1.0, 0.0)
    assert (second.over_picture, *on_guidance(second)) == (True, 2.0, 0.5)
    assert first.unguided == second.unguided == {3}
    assert plan(Family.SD1, 1024, 1024, window_shift="Random").part(MSWMSA).shift is WindowShift.RANDOM


def test_the_native_side_of_each_kind_of_model() -> None:
    assert [plan(family, 512, 512).native for family in (Family.SD1, Family.SD2, Family.SDXL)] == [512, 512, 1024]
    predicts = Situation(v_prediction=True)
    assert [plan(family, 512, 512, predicts).native for family in (Family.SD1, Family.SD2)] == [512, 768]
    assert plan(Family.SDXL, 512, 512, preset="Turbo").native == 512
    assert plan(Family.SDXL, 512, 512, preset="Turbo", native_size=640).native == 640


SCALECRAFTERS, OVER_PICTURES = {"dispersion", "damped_guidance"}, {"split_guidance", "anchor"}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, SCALECRAFTERS),
        ({"method": "Native first"}, SCALECRAFTERS),
        ({"rau_net": False}, SCALECRAFTERS | {"t1", "t2"}),
        ({"msw_msa": False}, SCALECRAFTERS | {"window_shift"}),
        ({"method": "Relay", "rau_net": False}, SCALECRAFTERS | {"rau_net"}),
        ({"method": "ScaleCrafter", "preset": "2x", "rau_net": False}, SCALECRAFTERS | {"rau_net", "t2"}),
        ({"method": "ScaleCrafter", "preset": "4x"}, {"rau_net", "t2"}),
    ],
)
def test_settings_without_effect(options: dict[str, object], names: set[str]) -> None:
    for over_picture in (False, True):
        found = plan(Family.SD1, 1024, 1024, Situation(over_picture=over_picture), **options)
        told = without_effect(Options.from_mapping(options), found)
        assert set(told) == names | (set() if over_picture else OVER_PICTURES)
        assert all(told.values())


def test_a_native_picture_may_have_half_as_many_pixels_more() -> None:
    assert not plan(Family.SD1, 512, 768).active
    assert plan(Family.SD1, 512, 776).active
    assert plan(Family.SDXL, 512, 776, preset="Turbo").active
    assert not plan(Family.SDXL, 512, 768, preset="Turbo").active


def ends(found: Plan) -> list[float]:
    """The noise at which each stage of a relay is handed on."""
    return [DISCRETE.sigma(DISCRETE.after(stage.span.end)) for stage in stages(found)]


@pytest.mark.parametrize(
    ("family", "side", "options", "preset", "sizes", "sigmas"),
    [
        (Family.SD1, 1024, {}, Preset.X2, [64], [3.4]),
        (Family.SD1, 1528, {}, Preset.X2, [64], [1.7 * 1528 / 512]),
        (Family.SD1, 1536, {}, Preset.X4, [64, 112], [5.1, 2.3]),
        (Family.SD1, 2048, {}, Preset.X4, [64, 128], [6.8, 2.3]),
        (Family.SD1, 1536, {"preset": "2x"}, Preset.X2, [64], [5.1]),
        (Family.SD1, 1024, {"preset": "4x"}, Preset.X4, [64, 88], [3.4, 2.3]),
        (Family.SDXL, 2048, {}, Preset.X2, [128], [3.4]),
        (Family.SD1, 512, {"native_size": 256}, Preset.X2, [32], [1.7]),
        (Family.SD1, 768, {"native_size": 256}, Preset.X4, [32, 56], [2.55, 1.15]),
    ],
)
def test_a_relay_is_handed_on_at_the_noise_of_its_sizes(
    family: Family, side: int, options: dict[str, object], preset: Preset, sizes: list[int], sigmas: list[float]
) -> None:
    found = plan(family, side, side, method="Relay", **options)
    assert found.preset is preset
    assert [stage.latent for stage in stages(found)] == [(size, size) for size in sizes]
    assert ends(found) == pytest.approx(sigmas, rel=0.02)
    assert [stage.native for stage in stages(found)] == [True, False][: len(sizes)]
    starts = [0.0, *(stage.span.end for stage in stages(found))]
    assert [stage.span.start for stage in stages(found)] == starts[:-1]
    assert (found.preset_t1, found.preset_t2) == (starts[-1], starts[1] if len(sizes) > 1 else 0.0)


def test_a_relays_own_thresholds() -> None:
    def spans(**options: object) -> list[tuple[float, float]]:
        found = plan(Family.SD1, 1536, 1536, method="Relay", **options)
        return [(stage.span.start, stage.span.end) for stage in stages(found)]

    assert spans(t1=0.9, t2=0.2) == [(0, 0.2), (0.2, 0.9)]
    assert spans(t1=0.3, t2=0.5) == [(0, 0.5)]
    assert spans(t1=0.1) == [(0, 0.1)]
    assert spans(t1=0.9, preset="2x") == [(0, 0.9)]
    assert spans(t1=0.9, t2=0.2, preset="2x") == [(0, 0.2), (0.2, 0.9)]
    predicts = Situation(v_prediction=True)
    assert plan(Family.SD2, 1536, 1536, predicts, method="Relay").v_prediction
    assert not plan(Family.SD2, 1536, 1536, method="Relay").v_prediction


@pytest.mark.parametrize(
    ("family", "taus"),
    [
        (Family.SD1, {1.5: 0.6, 2: 0.6, 2.25: 0.65, 2.5: 0.7, 3.25: 0.7, 4: 0.7, 6: 0.7}),
        (Family.SD2, {1.5: 0.4, 2: 0.4, 2.25: 0.5, 2.5: 0.6, 3.25: 0.67, 4: 0.74, 6: 0.74}),
        (Family.SDXL, {1.5: 0.6, 2: 0.6, 2.25: 0.6, 2.5: 0.6, 3.25: 0.65, 4: 0.7, 6: 0.7}),
    ],
)
def test_how_long_scalecrafter_redilates(family: Family, taus: dict[float, float]) -> None:
    """The longer side counts."""
    for times, tau in taus.items():
        for width, height in ((times, 1.5), (1.5, times)):
            found = plan(family, int(512 * width), int(512 * height), native_size=512, method="ScaleCrafter")
            graded = times >= 3
            assert found.preset is (Preset.X4 if graded else Preset.X2)
            assert found.preset_t1 == pytest.approx(tau)
            assert span_of(found, Redilation) == Span(0, found.preset_t1)
            assert found.part(Redilation).progressive == graded
            assert span_of(found, DampedGuidance) == (Span(0, found.preset_t1) if graded else Span())


def test_each_axis_is_redilated_by_its_own_enlargement() -> None:
    def factors(width: int, height: int, **options: object) -> set[tuple[float, float]]:
        return {site.factor for site in redilations(plan(Family.SD1, width, height, method="ScaleCrafter", **options))}

    assert factors(1280, 1024) == {(2, 2.5)}
    assert factors(1280, 384) == {(1, 2.5)}  # the side that is shorter than the native one is left
    assert factors(2048, 1280) == {(1.5, 2), (2, 3), (2.5, 4)}
    assert factors(2048, 2048, preset="2x") == {(4, 4)}
    assert factors(1280, 1280, preset="4x") == {(1.5, 1.5), (2, 2), (2.5, 2.5)}


def test_what_belongs_to_scalecrafters_4x_preset() -> None:
    def of(**options: object) -> Plan:
        return plan(Family.SD1, 2048, 2048, method="ScaleCrafter", **options)

    alone = of(damped_guidance=False)
    assert alone.part(DampedGuidance) is None
    assert {site.base for site in redilations(alone)} == {(1, 1)}
    assert {site.base for site in redilations(of())} == {(1, 1), (3, 3), (4, 4)}
    assert not any(site.dispersed for site in redilations(of()))
    dispersed = {site.conv for site in redilations(of(dispersion=True)) if site.dispersed}
    assert dispersed < {site.conv for site in redilations(of())}
    assert any(conv.startswith("middle") for conv in dispersed)
    smaller = of(preset="2x", dispersion=True)
    assert (smaller.part(DampedGuidance), {site.base for site in redilations(smaller)}) == (None, {(1, 1)})
    assert not any(site.dispersed for site in redilations(smaller))
