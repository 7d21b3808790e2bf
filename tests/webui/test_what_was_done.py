"""Jobs of the stand-in in which something comes between the plan and the picture: what is said is what happened."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from job_host import HIRES, SCALECRAFTER, Host
from plans import REASON, held
from told import parts_of
from torch import nn

from hidiffusion_ext.core import Need, Span
from hidiffusion_ext.core.parts.part import LAYERS_NOT_CALLED, NOT_GUIDED, WHOLE
from hidiffusion_ext.core.parts.windows import MSWMSA
from hidiffusion_ext.core.words import SETTLED
from hidiffusion_ext.hosts import passes
from hidiffusion_ext.hosts.guiding import CFG_SCALE_1
from hidiffusion_ext.webui.account import NEVER_CALLED, NOTHING_YET, TILED
from hidiffusion_ext.webui.script import ENDED_EARLY, NO_PASS
from modules import paths, processing, processing_job, sd_samplers, shared
from modules.infotext_utils import parse_generation_parameters

REDILATED = {"re-dilation": (1, 2, 4), "MSW-MSA": WHOLE}


def unet() -> nn.Module:
    return shared.sd_model.model.diffusion_model


def settings_file() -> str:
    return Path(paths.data_path, "params.txt").read_text(encoding="utf8")


@pytest.mark.parametrize(
    ("options", "payload", "damping"),
    [
        ({}, {}, (1, 2, 4)),
        ({"skip_early_cond": 0.9}, {}, NOT_GUIDED),
        ({"s_min_uncond_all": True}, {"s_min_uncond": 100.0}, NOT_GUIDED),
        ({}, {"cfg_scale": 1}, CFG_SCALE_1),
        ({"skip_early_cond": 0.25}, {}, NOT_GUIDED),
    ],
)
def test_guidance_that_is_left_out(host: Host, options: dict[str, Any], payload: dict[str, Any], damping: Any) -> None:
    pictures, noted, _ = host.job(SCALECRAFTER, override_settings=options, **payload)
    assert parts_of(noted["HiDiffusion"]) == {**REDILATED, "noise-damped guidance": damping}
    if isinstance(damping, str):
        undamped = {**SCALECRAFTER, "damped_guidance": False}
        assert pictures == host.job(undamped, override_settings=options, **payload)[0]


@contextmanager
def merged_tokens() -> Iterator[None]:
    """Self-attentions look at other tokens than those they answer for, as with token downsampling."""

    def fewer(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return (args[0],), {**kwargs, "context": args[0][:, ::4].clone()}

    attentions = [module for name, module in unet().named_modules() if name.endswith("attn1")]
    handles = [module.register_forward_pre_hook(fewer, with_kwargs=True) for module in attentions]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def test_windows_that_are_never_cut(host: Host) -> None:
    with merged_tokens():
        plain, _, _ = host.job()
        pictures, noted, _ = host.job({})
        assert parts_of(noted["HiDiffusion"]) == {"RAU-Net": (1, 2, 4), "MSW-MSA": MSWMSA.not_met}
        assert pictures != plain
        pictures, noted, _ = host.job({"rau_net": False})
        (reason,) = noted.values()
        assert parts_of(reason) == {"MSW-MSA": MSWMSA.not_met}
        assert noted == {"HiDiffusion refused": reason}
        assert pictures == plain
        assert host.said == [f"not used: {reason}"]


def test_a_unet_that_is_called_as_a_whole(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a compiled one: its layers' hooks are passed by."""

    def whole(*args: Any, **kwargs: Any) -> torch.Tensor:
        hooked = [module for module in unet().modules() if module is not unet()]
        with monkeypatch.context() as bare:
            for module in hooked:
                bare.setattr(module, "_forward_pre_hooks", {})
                bare.setattr(module, "_forward_hooks", {})
            return type(unet()).forward(unet(), *args, **kwargs)

    monkeypatch.setattr(unet(), "forward", whole)
    plain, _, _ = host.job()
    pictures, noted, _ = host.job({})
    assert pictures == plain
    assert noted.keys() == {"HiDiffusion refused"}
    assert parts_of(noted["HiDiffusion refused"]) == {"RAU-Net": LAYERS_NOT_CALLED, "MSW-MSA": MSWMSA.not_met}


def test_a_unet_that_is_never_called(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.sd_model, "apply_model", lambda x, *args, **kwargs: x * 0)
    _, noted, _ = host.job({})
    assert noted == {"HiDiffusion refused": NEVER_CALLED}
    assert "HiDiffusion: " in settings_file()


def test_a_unet_that_is_called_on_tiles(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shared.sd_model.apply_model

    def tiles(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return torch.cat([whole(part, *args, **kwargs) for part in x.chunk(2, 2)], 2)

    monkeypatch.setattr(shared.sd_model, "apply_model", tiles)
    _, noted, _ = host.job({})
    assert noted == {"HiDiffusion refused": TILED}


def test_a_script_that_samples_in_its_own_way(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the host's "img2img alternative test" does."""

    def sample(p: Any, conditioning: Any, unconditional_conditioning: Any, **_: Any) -> Any:
        sampler = sd_samplers.create_sampler(p.sampler_name, p.sd_model)
        x = p.rng.next()
        unused = processing_job.no_image_conditioning(x)
        return sampler.sample(p, x, conditioning, unconditional_conditioning, image_conditioning=unused)

    monkeypatch.setattr(processing.StableDiffusionProcessingTxt2Img, "sample", sample)
    plain, _, _ = host.job()
    for payload in ({}, {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent"}):
        pictures, noted, _ = host.job({}, **payload)
        expected = parse_generation_parameters(settings_file())["HiDiffusion"]
        assert parts_of(expected) == {"RAU-Net": Span(0, 0.4), "MSW-MSA": WHOLE}
        assert noted == {"HiDiffusion refused": NO_PASS}
        assert host.said == [f"not used: {NO_PASS}"]
        assert payload or pictures == plain


def test_a_hires_pass_that_is_never_reached(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        processing.StableDiffusionProcessingTxt2Img, "sample_hr_pass", lambda self, samples, *_: samples
    )
    _, noted, _ = host.job({}, **HIRES)
    assert noted == {}
    _, noted, _ = host.job({}, **{**HIRES, "width": 128, "height": 128})
    assert noted.keys() == {"HiDiffusion", "HiDiffusion Native size", "HiDiffusion version"}
    assert host.said == []


@contextmanager
def pressed(button: str, at: int) -> Iterator[None]:
    """That button of the page is pressed during the at-th call of the model, counted from 1."""
    calls = itertools.count(1)

    def press(*_: Any) -> None:
        if next(calls) == at:
            getattr(shared.state, button)()

    handle = unet().register_forward_pre_hook(press)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("button", "at", "size", "told"),
    [
        ("interrupt", 2, 64, [ENDED_EARLY % (64, 64)]),
        ("skip", 2, 128, [f"after the pass: {NOTHING_YET}"]),
        ("interrupt", 10, 128, []),
        ("skip", 10, 128, []),
    ],
)
def test_native_first_that_is_stopped(host: Host, button: str, at: int, size: int, told: list[str]) -> None:
    """In its first pass, or in its second one."""
    with pressed(button, at):
        pictures, noted, _ = host.job({"method": "Native first", "faster_second_pass": "Off"}, steps=8)
    announced, first, *after = host.log
    assert announced.startswith("64x64, then 128x128 at a strength of ")
    assert first.startswith("SD1.5, 64x64: nothing to do")
    if size == 128:
        second, _, planned = after.pop(0).partition(": ")
        assert second == "SD1.5, 128x128, hires pass, preset 2x"
        assert parts_of(planned) == {"MSW-MSA": WHOLE, "RAU-Net": SETTLED}
    assert after == told
    assert len(pictures[0]) == 3 * size**2
    assert ("HiDiffusion hires" in noted) == (at == 10)


def test_a_reason_holds_for_its_own_batch(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = shared.sd_model.apply_model, [0]

    def only_later(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls[0] += 1
        return x * 0 if calls[0] <= 4 else whole(x, *args, **kwargs)

    monkeypatch.setattr(shared.sd_model, "apply_model", only_later)
    _, noted, _ = host.job({}, n_iter=2)
    assert parts_of(noted["HiDiffusion"]) == {"RAU-Net": (1, 2, 4), "MSW-MSA": WHOLE}
    assert "HiDiffusion refused" not in noted
    assert host.said == [f"not used: {NEVER_CALLED}"]


@pytest.mark.parametrize(
    ("method", "job", "where"),
    [
        ("HiDiffusion", {**HIRES, "denoising_strength": 0.3}, ""),
        ("Native first", {"steps": 8}, " in the second pass"),
    ],
    ids=["hires fix", "Native first"],
)
def test_what_gave_way_is_said_where_the_rest_has_nothing_to_do(
    host: Host, monkeypatch: pytest.MonkeyPatch, method: str, job: dict[str, Any], where: str
) -> None:
    monkeypatch.setattr(passes.conflicts, "conflicts", lambda *args: held(Need.TOKENS))
    pictures, noted, _ = host.job({"method": method, "faster_second_pass": "Off"}, **job)
    assert len(pictures) == 1
    reason = noted["HiDiffusion refused"]
    assert parts_of(reason) == {"MSW-MSA": REASON, "RAU-Net": SETTLED}
    assert not {"HiDiffusion", "HiDiffusion hires"} & set(noted)
    assert ("HiDiffusion native first" in noted) == bool(where)
    assert host.said == [f"not used{where}: {reason}"]
