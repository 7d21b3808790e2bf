"""The relay: calls at smaller sizes, their answers enlarged, and when."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ldm.modules.diffusionmodules import openaimodel
from plans import REASON, held, stages
from told import parts_of
from unets import inputs, shared_unet, tiny_unet

from hidiffusion_ext.core import (
    Family,
    LeftOut,
    Method,
    Need,
    NoiseLevels,
    Options,
    Plan,
    Refused,
    Run,
    Schedule,
    Situation,
    hidiffusion,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.cost import count
from hidiffusion_ext.core.methods import without_effect
from hidiffusion_ext.core.parts.relay import Beginning, Call, enlarge, noise_kept, scale, shrink
from hidiffusion_ext.core.parts.windows import MSWMSA
from hidiffusion_ext.core.schedule import DISCRETE

UNET = shared_unet()
SIZES = [((32, 32), (16, 16)), ((24, 48), (16, 32)), ((48, 40), (16, 16)), ((136, 240), (48, 88))]
EVEN = [999.0 * (1 - step / 10) for step in range(10)]


def relay(size: int = 128, situation: Situation = Situation(), **options: Any) -> Plan:
    """A plan for a square picture by a model made for 64x64."""
    asked = Options.from_mapping({"native_size": 64, "method": "Relay", **options})
    return make_plan(asked, map_unet(UNET), (size // 8, size // 8), situation)


@pytest.mark.parametrize(("large", "small"), SIZES)
def test_shrinking_takes_means_and_enlarging_gives_them_back(large: tuple[int, int], small: tuple[int, int]) -> None:
    flat = torch.randn(2, 4, 1, 1).expand(2, 4, *large)
    torch.testing.assert_close(shrink(flat, small), flat[..., : small[0], : small[1]])
    x = torch.randn(1, 4, *large)
    torch.testing.assert_close(shrink(x, small).mean((2, 3)), x.mean((2, 3)), atol=1e-5, rtol=1e-5)
    smooth = torch.nn.functional.interpolate(torch.randn(1, 4, 6, 6), size=small, mode="bicubic")
    assert (shrink(enlarge(smooth, large), small) - smooth).abs().max() < 0.01 * smooth.abs().max()


@pytest.mark.parametrize(("large", "small"), SIZES)
def test_the_noise_that_is_left_is_known(large: tuple[int, int], small: tuple[int, int]) -> None:
    noise = torch.randn(256, 1, *large, generator=torch.Generator().manual_seed(0))
    assert shrink(noise, small).std().item() == pytest.approx(noise_kept(large, small), rel=0.01)
    if large == (32, 32):
        assert noise_kept(large, small) == pytest.approx(0.5)


@pytest.mark.parametrize("v_prediction", [False, True])
@pytest.mark.parametrize(("sigma", "larger"), [(0.5, 1.0), (3.0, 1.2), (14.6, 2.0)])
def test_a_perfect_answer_becomes_the_enlarged_clean_latent(v_prediction: bool, sigma: float, larger: float) -> None:
    clean_small, noise = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 32, 32)
    x = (enlarge(clean_small, (32, 32)) + sigma * noise) / (1 + sigma**2) ** 0.5
    mask = torch.rand(1, 5, 32, 32)
    unet = map_unet(shared_unet(in_channels=9))
    call = Call(torch.cat([x, mask], 1), (16, 16), [sigma], [larger], unet, v_prediction=v_prediction)
    (s,) = call.sigmas
    assert s == pytest.approx(larger * sigma / 2)
    torch.testing.assert_close(call.input[:, 4:], shrink(mask, (16, 16)))
    norm = (1 + s**2) ** 0.5
    means = shrink(x, (16, 16)) * (1 + sigma**2) ** 0.5
    torch.testing.assert_close(call.input[:, :4] * norm, larger * means)
    perfect = (call.input[:, :4] * norm - clean_small) / s
    answer = call.output((perfect - s * clean_small) / norm if v_prediction else perfect)
    norm = (1 + sigma**2) ** 0.5
    found = (x - sigma * answer) / norm if v_prediction else x * norm - sigma * answer
    torch.testing.assert_close(found, enlarge(clean_small, (32, 32)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("autocast", [None, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("sigma", "left"), [(14.6, 1.0), (7.0, 7 / 14.6), (7.0, (7 / 14.6) ** 2), (3.0, 0.0)])
def test_how_much_of_the_first_noise_is_left_is_found(sigma: float, left: float, autocast: torch.dtype | None) -> None:
    """In either order of rows, in a part of them, in half precision, and not to be mistaken for new noise."""
    generator = torch.Generator().manual_seed(0)
    first, new = torch.randn(2, 2, 4, 64, 64, generator=generator)
    clean = enlarge(torch.randn(2, 4, 16, 16, generator=generator), (64, 64))
    beginning = Beginning(14.6, 4)
    given = autocast or torch.float32
    for row in first:
        beginning.note((row[None] * 14.6 / (1 + 14.6**2) ** 0.5).to(given))
    added = (max(0.0, sigma**2 - (14.6 * left) ** 2)) ** 0.5
    x = ((1 - left) * clean + 14.6 * left * first + added * new) / (1 + sigma**2) ** 0.5
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        found = beginning.found(x.to(given))
    assert found is not None
    assert beginning.left(found.tolist(), [sigma] * 2) == pytest.approx([left, left], abs=0.02)
    assert beginning.left(found.tolist()[1:], [sigma]) == pytest.approx([left], abs=0.02)
    assert Beginning(14.6, 4).found(x) is None
    assert Beginning(14.6, 4).left(None, [sigma] * 2) == pytest.approx([sigma / 14.6] * 2)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("kept", [0.5, 0.25, 0.4])
def test_means_become_the_latent_of_a_native_pass(power: int, kept: float) -> None:
    """Whose samplers leave that power of the noise: 1 without new noise, 2 as ancestral ones do."""
    for ratio in (0.05, 0.3, 0.8, 0.99):
        larger = scale(ratio, ratio**power, kept)
        assert larger * (1 - ratio**power) == pytest.approx(1 - (larger * kept * ratio) ** power, abs=1e-4)
        assert 1 <= larger <= 1 / kept
    assert scale(1, 1, kept) == 1 / kept
    assert scale(0.5, 0.0, kept) == pytest.approx(1, abs=0.01)


def called(
    plan: Plan, timestep: float, rows: slice = slice(0, 1), schedule: Schedule = Schedule(EVEN)
) -> tuple[torch.Tensor, Any]:
    """The UNet's answer for some of two pictures under a plan, and (size, timestep) of what its layers saw."""
    seen: list[tuple[tuple[int, ...], float]] = []
    x, context = inputs(plan.latent, batch=2)

    def note(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        seen.append((tuple(args[0].shape[2:]), float(args[1].max())))

    with torch.inference_mode(), hidiffusion(UNET, plan, Run(schedule)):
        handle = UNET.register_forward_pre_hook(note)
        try:
            answer = UNET(x[rows], torch.full((len(x[rows]),), timestep), context=context[rows])
        finally:
            handle.remove()
    return answer, seen[0]


def test_the_unet_is_called_at_the_native_size_until_the_picture_is_handed_on() -> None:
    plan = relay(t1=0.5)
    answer, (size, timestep) = called(plan, EVEN[2])
    assert (answer.shape[2:], size) == ((16, 16), (8, 8))
    assert DISCRETE.sigma(EVEN[2]) / 2 < DISCRETE.sigma(timestep) < DISCRETE.sigma(EVEN[2])
    _, (size, timestep) = called(plan, EVEN[6])
    assert (size, timestep) == ((16, 16), pytest.approx(EVEN[6]))
    x, context = inputs(plan.latent, batch=2)
    with torch.inference_mode():
        alone = UNET(x[:1], torch.full((1,), EVEN[6]), context=context[:1])
    assert torch.equal(called(relay(t1=0.5, msw_msa=False), EVEN[6])[0], alone)


@pytest.mark.parametrize(
    ("native", "latent", "stage"),
    [
        (512, (128, 128), (64, 64)),
        (512, (128, 192), (48, 72)),
        (512, (136, 240), (48, 84)),
        (1024, (180, 320), (96, 168)),
        (128, (48, 24), (24, 12)),
        (128, (16, 48), (10, 30)),
    ],
)
def test_a_stage_has_the_aspect_of_the_picture(native: int, latent: tuple[int, int], stage: tuple[int, int]) -> None:
    plan = make_plan(Options(method=Method.RELAY, native_size=native, t1=0.5), map_unet(UNET), latent)
    assert stages(plan)[0].latent == stage


def test_a_stage_need_not_be_halved_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the host does not fit what comes up to its skip connection, as plain ldm does not."""
    monkeypatch.setattr(openaimodel, "th", torch)
    plan = make_plan(Options(method=Method.RELAY, native_size=128, t1=0.5), map_unet(UNET), (48, 16))
    answer, (size, _) = called(plan, EVEN[0])
    assert (size, answer.shape[2:]) == ((30, 10), (48, 16))


def test_rows_at_other_noise_are_what_they_are_alone() -> None:
    plan = relay(t1=0.5)
    x, context = inputs(plan.latent, batch=2)
    for timesteps in ((EVEN[0], EVEN[1]), (EVEN[3], EVEN[2] + 20)):
        t = torch.tensor(timesteps)
        with torch.inference_mode(), hidiffusion(UNET, plan, Run(Schedule(EVEN))):
            together = UNET(x, t, context=context)
        for row in range(2):
            one = slice(row, row + 1)
            with torch.inference_mode(), hidiffusion(UNET, plan, Run(Schedule(EVEN))):
                alone = UNET(x[one], t[one], context=context[one])
            torch.testing.assert_close(together[one], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("channels", [4, 16, 32])
@pytest.mark.parametrize("inpaints", [False, True])
def test_a_latent_has_the_channels_that_the_unet_answers_with(channels: int, inpaints: bool) -> None:
    unet = tiny_unet(in_channels=2 * channels + 1 if inpaints else channels)
    last = unet.out[2]
    unet.out[2] = torch.nn.Conv2d(last.in_channels, channels, 3, 1, 1).requires_grad_(False)
    unet_map = map_unet(unet)
    assert (unet_map.out_channels, unet_map.inpaints) == (channels, inpaints)
    plan = make_plan(Options(native_size=64, method=Method.RELAY, t1=0.5), unet_map, (16, 16))
    x, context = inputs(plan.latent, in_channels=unet_map.in_channels)
    with torch.inference_mode(), hidiffusion(unet, plan, Run(Schedule(EVEN))):
        for timestep in EVEN[:2]:
            assert unet(x, torch.tensor([timestep]), context=context).shape == (1, channels, 16, 16)


def test_from_three_times_the_side_on_there_is_a_stage_between() -> None:
    plan = relay(256, t1=0.8, t2=0.5)
    assert [called(plan, EVEN[step])[1][0] for step in (0, 4, 5, 7, 8)] == [
        (8, 8),
        (8, 8),
        (16, 16),
        (16, 16),
        (32, 32),
    ]
    assert [Schedule(EVEN).steps_inside(stage.span)[-1] for stage in stages(plan)] == [4, 7]
    shares = count(plan, Schedule(EVEN)).shares
    assert shares[0] < shares[5] < shares[8] < 1
    assert relay(256).preset_t2 < relay(256).preset_t1


@pytest.mark.parametrize("over_picture", [False, True])
def test_a_small_pass_begins_with_all_of_the_noise_unless_a_picture_is_in_the_latent(over_picture: bool) -> None:
    plan = relay(256, t1=0.8, t2=0.5, situation=Situation(over_picture=over_picture))
    for step, kept in ((0, 1 / 4), (3, 1 / 4), (6, 1 / 2)):
        sigma, first = DISCRETE.sigma(EVEN[step]), DISCRETE.sigma(EVEN[0])
        larger = 1.0 if over_picture else scale(sigma / first, sigma / first, kept)
        assert DISCRETE.sigma(called(plan, EVEN[step])[1][1]) == pytest.approx(larger * kept * sigma, rel=1e-3)
    assert over_picture or called(plan, EVEN[0])[1][1] == pytest.approx(EVEN[0])


def test_a_pass_takes_the_noise_it_begins_with_from_its_first_call() -> None:
    """A sampler that leaves nothing of it, such as LCM, is not taken for one that adds none."""
    plan, timesteps, seen = relay(256), Schedule(EVEN), list[float]()
    x, context = inputs(plan.latent, batch=2)
    with torch.inference_mode(), hidiffusion(UNET, plan, Run(timesteps)):
        handle = UNET.register_forward_pre_hook(lambda module, args: seen.append(float(args[1].max())))
        try:
            for step, latent in ((0, x), (3, x.flip(-1))):
                UNET(latent, torch.full((2,), EVEN[step]), context=context)
        finally:
            handle.remove()
    assert seen[0] == pytest.approx(EVEN[0])
    assert DISCRETE.sigma(seen[1]) == pytest.approx(DISCRETE.sigma(EVEN[3]) / 4, rel=0.1)


def test_the_layout_of_fewer_cells_is_settled_at_less_noise() -> None:
    """As measured on the demo model: at half the noise's deviation for half the side."""
    sd = make_plan(Options.from_mapping({"method": "Relay"}), map_unet(UNET), (128, 128))
    assert DISCRETE.sigma(DISCRETE.after(sd.preset_t1)) == pytest.approx(3.4, rel=0.01)
    assert DISCRETE.sigma(DISCRETE.after(relay().preset_t1)) == pytest.approx(3.4 / 8, rel=0.01)


def test_a_size_is_handed_on_at_the_same_noise_whatever_the_models_schedule() -> None:
    """As of continuous EDM levels: sigmas from 0.002 to 120, a timestep being a quarter of the logarithm."""
    sigmas = [0.002 * 60_000 ** (level / 999) for level in range(1000)]
    levels = NoiseLevels([0.25 * math.log(sigma) for sigma in sigmas], sigmas)
    plan = relay(256, situation=Situation(levels=levels))
    ends = [levels.sigma(levels.after(stage.span.end)) for stage in stages(plan)]
    assert ends == pytest.approx(
        [DISCRETE.sigma(DISCRETE.after(stage.span.end)) for stage in stages(relay(256))], rel=0.01
    )


def test_a_pass_that_begins_with_little_noise_has_no_relay() -> None:
    plan = relay(t1=0.3, situation=Situation(hires=True, over_picture=True))
    late = Schedule([400, 300, 200, 100])
    assert [part.name for part in plan.parts if part.due(late)] == [MSWMSA.name]
    assert called(plan, 400, schedule=late)[1] == ((16, 16), 400)


def test_what_a_relay_cannot_live_with_leaves_it_out() -> None:
    situation = Situation(conflicts=held(Need.INPUT))
    plan = relay(situation=situation, faster_second_pass="Off")
    assert ([part.name for part in plan.parts], plan.left_out) == ([MSWMSA.name], (LeftOut("relay", REASON),))
    with pytest.raises(Refused) as refused:
        relay(situation=situation, msw_msa=False, faster_second_pass="Off")
    assert parts_of(str(refused.value)) == {"relay": REASON}
    with pytest.raises(Refused, match="HiDiffusion"):
        make_plan(
            Options.from_mapping({"method": "Relay", "preset": "Turbo"}), map_unet(shared_unet(Family.SDXL)), (256, 256)
        )


def test_what_has_no_effect_is_said() -> None:
    found = without_effect(Options.from_mapping({"method": "Relay"}), relay())
    assert {"rau_net", "dispersion", "damped_guidance", "split_guidance", "anchor"} <= set(found)
    assert "t1" not in found
