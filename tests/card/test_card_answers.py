"""On a graphics card the answers are the official code's, those of single precision, and nobody's picture is lost."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import pytest
import torch
from card import Card
from parity import CASES, TOLERANCE, largest_difference
from snapshot import snapshot
from unets import inputs, tiny_unet, uniform_timesteps

from benchmarks.speed.subjects import in_precision
from hidiffusion_ext.core import Family, Method, Options, Plan, Preset, Run, Schedule, hidiffusion, make_plan, map_unet
from hidiffusion_ext.core.parts.damped_guidance import DampedGuidance
from hidiffusion_ext.core.schedule import DISCRETE
from hidiffusion_ext.hosts.compiled import CAN_PAUSE, eagerly
from hidiffusion_ext.hosts.fallback import is_out_of_memory
from ldm_unet import LdmUNet

STEPS = 10
LATENTS = [(16, 16), (17, 21), (32, 32)]
"""Twice the native side, an odd size, and four times the side."""

WIDE = [(32, 32), (33, 41)]
"""Four times the side: the tiny UNets' coarsest maps have more than one cell, which they are normalised over."""

WAYS: dict[str, dict[str, Any]] = {
    "HiDiffusion": {},
    "MSW-MSA": {"rau_net": False},
    "HiDiffusion, both pairs": {"preset": Preset.X4},
    "Relay": {"method": Method.RELAY},
    "Relay, two stages": {"method": Method.RELAY, "preset": Preset.X4},
    "ScaleCrafter": {"method": Method.SCALECRAFTER, "msw_msa": False},
    "ScaleCrafter, all of it": {"method": Method.SCALECRAFTER, "preset": Preset.X4, "dispersion": True},
}

WITH_EVERY_PART = "HiDiffusion, both pairs", "Relay, two stages", "ScaleCrafter, all of it"

HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}

NO_WORSE = 3
"""How many times the unpatched UNet's own error of a precision a patched call's may be."""


def test_the_official_codes_answers(card: Card) -> None:
    cases = dict(list(CASES.items())[:2]) if card.small else CASES
    latents = LATENTS[1:2] if card.small else LATENTS
    with card.in_single_precision():
        found = {
            f"{name}, latent {height}x{width}": largest_difference(case, (height, width), range(3), 5, card.device)
            for name, case in cases.items()
            for height, width in latents
        }
    worst = max(found, key=lambda name: found[name])
    seen, kept = f"{found[worst]:.0e} ({worst})", found[worst] <= TOLERANCE
    card.expect("official code", f"largest of {len(found)} differences", seen, f"{TOLERANCE:.0e} at most", kept=kept)


def plan_of(unet: LdmUNet, latent: tuple[int, int], **options: Any) -> Plan:
    return make_plan(Options(native_size=64, **options), map_unet(unet), latent)


def answers(
    unet: LdmUNet, plan: Plan | None, latent: tuple[int, int], device: str, dtype: torch.dtype, *, autocast: bool
) -> torch.Tensor:
    """What the UNet says, in single precision, at steps of a pass that keeps its first noise: [calls, 2, 4, H, W]."""
    picture, context = inputs(latent, batch=2)
    noise, _ = inputs(latent, batch=2, seed=1)
    timesteps = uniform_timesteps(STEPS)
    weights = torch.float32 if autocast else dtype
    given: dict[str, Any] = {"device": device, "dtype": weights}
    found: list[torch.Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        run = Run(Schedule(timesteps))
        stack.enter_context(hidiffusion(unet, plan, run) if plan else nullcontext())
        if autocast:
            stack.enter_context(torch.autocast(device, dtype))
        for step in (0,) if device == "cpu" else range(0, STEPS, 3):
            sigma = DISCRETE.sigma(timesteps[step])
            x = ((0.5 * picture + sigma * noise) / math.hypot(1, sigma)).to(**given)
            t = torch.full((2,), timesteps[step], device=device, dtype=torch.float32 if autocast else torch.float16)
            found.append(unet(x, t, context=context.to(**given)).float())
            if run.has(DampedGuidance):
                with run.base_evaluation():
                    found.append(unet(x, t, context=context.to(**given)).float())
    return torch.stack(found)


def all_answers(
    unet: LdmUNet, ways: dict[str, Any], latent: tuple[int, int], device: str, dtype: torch.dtype, *, autocast: bool
) -> list[torch.Tensor]:
    """Those without us, and of every way."""
    plans = [None, *(plan_of(unet, latent, **options) for options in ways.values())]
    return [answers(unet, plan, latent, device, dtype, autocast=autocast) for plan in plans]


def test_half_precision_is_as_good_as_without_us(card: Card) -> None:
    ways = {name: WAYS[name] for name in WITH_EVERY_PART} if card.small else WAYS
    found: dict[str, dict[str, float]] = {f"{kind} {name}": {} for kind in ("autocast", "weights") for name in HALF}
    for family in (Family.SD1,) if card.small else Family:
        for latent in WIDE[:1] if card.small else WIDE:
            unet = tiny_unet(family, sized=True).to(card.device)
            with card.in_single_precision():
                single = all_answers(unet, ways, latent, card.device, torch.float32, autocast=False)
            for precision, ratios in found.items():
                kind, name = precision.split()
                if kind == "weights":
                    unet = in_precision(tiny_unet(family, sized=True).to(card.device), HALF[name])
                half = all_answers(unet, ways, latent, card.device, HALF[name], autocast=kind == "autocast")
                own, *errors = (float((a - b).norm() / b.norm()) for a, b in zip(half, single))
                assert 0 < own < 0.3
                where = f"{family.value}, latent {latent[0]}x{latent[1]}"
                ratios |= {f"{way}, {where}": error / own for way, error in zip(ways, errors)}
    kept = True
    for precision, ratios in found.items():
        worst = max(ratios, key=lambda name: ratios[name])
        seen, good = f"{ratios[worst]:.2f} times ({worst})", ratios[worst] <= NO_WORSE
        card.note(precision, "error over that without us", seen, f"{NO_WORSE} times at most", kept=good)
        kept = kept and good
    assert kept


def evaluate(unet: Any, device: str) -> torch.Tensor:
    x, context = inputs(LATENTS[0])
    t = torch.tensor(uniform_timesteps(STEPS)[:1], device=device)
    with torch.no_grad():
        return unet(x.to(device), t, context=context.to(device))


def patches(unet: LdmUNet) -> AbstractContextManager[None]:
    return hidiffusion(unet, plan_of(unet, LATENTS[0]), Run(Schedule(uniform_timesteps(STEPS))))


@pytest.mark.skipif(not CAN_PAUSE, reason="before PyTorch 2.6 compiled models are refused")
def test_a_compiled_model(card: Card) -> None:
    unet = tiny_unet().to(card.device)
    with patches(unet):
        patched = evaluate(unet, card.device)
    torch._dynamo.reset()
    compiled = torch.compile(unet, backend="eager" if card.small else "inductor")
    try:
        before = evaluate(compiled, card.device)
    except Exception as error:
        card.note("compiled model", "torch.compile", f"does not run here: {type(error).__name__}")
        pytest.skip("torch.compile does not run here")
    with eagerly(), patches(unet):
        same = torch.equal(evaluate(compiled, card.device), patched)
    same = same and torch.equal(evaluate(compiled, card.device), before)
    promised = "patched in the pass, compiled before and after"
    card.expect("compiled model", "torch.compile", promised if same else "another answer", promised, kept=same)


def evaluate_without_memory(unet: Any, card: Card) -> None:
    handle = unet.middle_block.register_forward_hook(lambda *_: card.take_all_memory())
    try:
        evaluate(unet, card.device)
    finally:
        handle.remove()


@pytest.mark.parametrize("family", Family)
def test_a_lack_of_memory(card: Card, family: Family) -> None:
    unet = tiny_unet(family).to(card.device)
    before, state = evaluate(unet, card.device), snapshot(unet)
    with patches(unet), pytest.raises((RuntimeError, MemoryError)) as caught:
        evaluate_without_memory(unet, card)
    error = caught.value
    as_before = snapshot(unet) == state and torch.equal(evaluate(unet, card.device), before)
    seen = f"{type(error).__name__}{'' if is_out_of_memory(error) else ', not recognised: ' + str(error)[:80]}"
    promised, kept = "recognised, the UNet as before", is_out_of_memory(error) and as_before
    card.expect(
        "out of memory", family.value, seen + (", as before" if as_before else ", NOT as before"), promised, kept=kept
    )
