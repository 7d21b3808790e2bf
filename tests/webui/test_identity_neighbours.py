"""Other extensions that change nothing, on both kinds of hosts: no picture is another one, whatever the method."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import k_diffusion.external
import pytest
import torch
from job_host import Host
from torch import nn

from modules import prompt_parser, script_callbacks, sd_samplers_cfg_denoiser, sd_samplers_common, shared

Apply = Callable[[ExitStack], None]
JOB = {"width": 128, "height": 128, "steps": 3, "cfg_scale": 5, "sampler_name": "Euler a"}
METHODS: dict[str, dict[str, Any]] = {
    "HiDiffusion": {},
    "random windows": {"window_shift": "Random"},
    "ScaleCrafter": {"method": "ScaleCrafter", "preset": "4x"},
    "dispersed": {"method": "ScaleCrafter", "preset": "4x", "dispersion": True},
    "Native first": {"method": "Native first", "split_guidance": 2.0, "anchor": 0.5, "faster_second_pass": "Off"},
    "Relay": {"method": "Relay", "faster_second_pass": "Off"},
}
"""What is left out of second passes is not left out beside others who work in the layers or on guidance."""

KINDS = ["A1111", "Forge"]


def unet() -> nn.Module:
    return shared.sd_model.model.diffusion_model


class ForgeModel:
    """What holds the UNet in the Forge family, as far as it matters."""

    def __init__(self, wrapped: Any) -> None:
        self.wrapped, self.diffusion_model = wrapped, unet()

    def apply_model(self, x: torch.Tensor, sigma: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        scale = sigma[:, None, None, None]
        t = self.wrapped.sigma_to_t(sigma)
        return x - scale * self.diffusion_model(x / (1 + scale**2).sqrt(), t, context=context)


def calc_cond_uncond_batch(
    model: Any, cond: list[Any], uncond: list[Any] | None, x: torch.Tensor, sigma: torch.Tensor, options: Any
) -> list[torch.Tensor]:
    """The clean estimates of the conditions and of the unconditional rows, zeros for none; the latter go first."""
    rows = [*(uncond or []), *cond]
    count = len(rows)
    found = model.apply_model(torch.cat([x] * count), torch.cat([sigma] * count), torch.cat(rows)).chunk(count)
    return [found[-1] if cond else torch.zeros_like(x), found[0] if uncond else torch.zeros_like(x)]


def forge_denoiser(
    self: Any,
    x: torch.Tensor,
    sigma: torch.Tensor,
    uncond: Any,
    cond: Any,
    cond_scale: float,
    s_min_uncond: float,
    image_cond: torch.Tensor,
) -> torch.Tensor:
    """The Forge family's denoiser, for one picture with one condition."""
    _, text = prompt_parser.reconstruct_multicond_batch(cond, self.step)
    negative = prompt_parser.reconstruct_cond_batch(uncond, self.step)
    params = script_callbacks.CFGDenoiserParams(x, image_cond, sigma, 0, 0, text, negative, self)
    script_callbacks.cfg_denoiser_callback(params)
    patcher = self.inner_model.inner_model.forge_objects.unet
    options, rows = patcher.model_options, ([text], [negative])
    found, base = sys.modules["backend.sampling.sampling_function"].calc_cond_uncond_batch(  # type: ignore[attr-defined]
        patcher.model, *rows, x, sigma, options
    )
    result = base + (found - base) * cond_scale
    for function in options.get("sampler_post_cfg_function", []):
        given = {"denoised": result, "cond": rows[0], "uncond": rows[1], "model": patcher.model, "input": x}
        given |= {"uncond_denoised": base, "cond_denoised": found, "sigma": sigma, "model_options": options}
        result = function(given)
    self.step += 1
    return result


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, fresh_host: Host) -> Iterator[str]:
    """The stand-in as it is, or with a denoiser and a place for the UNet like the Forge family's."""
    if request.param == "A1111":
        yield request.param
        return
    with pytest.MonkeyPatch.context() as patch:
        model = ForgeModel(k_diffusion.external.CompVisDenoiser(shared.sd_model))
        objects = SimpleNamespace(unet=SimpleNamespace(model=model, model_options={}))
        patch.setattr(shared.sd_model, "forge_objects", objects, raising=False)
        patch.setattr(sd_samplers_cfg_denoiser.CFGDenoiser, "forward", forge_denoiser)
        functions = SimpleNamespace(calc_cond_uncond_batch=calc_cond_uncond_batch)
        patch.setitem(sys.modules, "backend.sampling.sampling_function", functions)  # type: ignore[arg-type]
        yield request.param


def patcher() -> Any:
    """Of the Forge kind."""
    return shared.sd_model.forge_objects.unet


def hooks(stack: ExitStack) -> None:
    """On every module, before and after it."""
    for module in unet().modules():
        stack.callback(module.register_forward_pre_hook(lambda *_: None).remove)
        stack.callback(module.register_forward_hook(lambda *_: None).remove)


def with_callback(stack: ExitStack, name: str, callback: Callable[[Any], None]) -> None:
    entries = script_callbacks.callback_map[f"callbacks_{name}"]
    entry = script_callbacks.ScriptCallback("a neighbour", callback)
    entries.append(entry)
    stack.callback(entries.remove, entry)


def before_the_denoiser(stack: ExitStack) -> None:
    """Evaluates the model before the denoiser does, at another noise and with one row only."""

    def again(params: Any) -> None:
        x, sigma, text = params.x[:1] * 0.5, params.sigma[:1] / 2, params.text_cond[:1]
        if hasattr(shared.sd_model, "forge_objects"):
            calc_cond_uncond_batch(patcher().model, [text], None, x, sigma, {})
            return
        cond = {"c_crossattn": [text], "c_concat": [params.image_cond[:1]]}
        params.denoiser.inner_model(x, sigma, cond=cond)

    with_callback(stack, "cfg_denoiser", again)


def after_the_denoiser(stack: ExitStack) -> None:
    """Evaluates the unconditional rows at another noise, as self-attention guidance and its kin evaluate once more."""
    seen: list[Any] = []

    def remember(params: Any) -> None:
        seen[:] = [params]

    def again(params: Any) -> None:
        (before,) = seen
        text = before.text_uncond
        count = len(text)
        cond = {"c_crossattn": [text], "c_concat": [before.image_cond[-count:]]}
        params.inner_model(before.x[-count:] * 0.5, before.sigma[-count:] / 2, cond=cond)

    def on_forge(args: dict[str, Any]) -> torch.Tensor:
        x, sigma = args["input"] * 0.5, args["sigma"] / 2
        calc_cond_uncond_batch(args["model"], args["uncond"], None, x, sigma, args["model_options"])
        return args["denoised"]

    if hasattr(shared.sd_model, "forge_objects"):
        patcher().model_options["sampler_post_cfg_function"] = [on_forge]
        stack.callback(patcher().model_options.clear)
    else:
        with_callback(stack, "cfg_denoiser", remember)
        with_callback(stack, "cfg_denoised", again)


def model_wrapper(stack: ExitStack) -> None:
    """Around `apply_model`."""
    owner = patcher().model if hasattr(shared.sd_model, "forge_objects") else shared.sd_model
    original = owner.apply_model
    owner.apply_model = lambda *args, **kwargs: original(*args, **kwargs)
    stack.callback(delattr, owner, "apply_model")


def sampler_wrapper(stack: ExitStack) -> None:
    """Around the sampling function, put there after ours, with all attributes of what it wraps."""
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    initialize = sd_samplers_common.Sampler.initialize

    def wrapped(self: Any, p: Any) -> None:
        func = self.func
        self.func = functools.wraps(func)(lambda *args, **kwargs: func(*args, **kwargs))
        initialize(self, p)

    patch.setattr(sd_samplers_common.Sampler, "initialize", wrapped)


NEIGHBOURS: dict[str, Apply] = {
    "hooks": hooks,
    "evaluates before": before_the_denoiser,
    "evaluates after": after_the_denoiser,
    "wraps the model": model_wrapper,
    "wraps the sampler": sampler_wrapper,
}


def made(host: Host, method: str) -> Any:
    return host.job({"native_size": 64, **METHODS[method]}, **JOB)


@pytest.fixture(scope="module")
def alone(fresh_host: Host) -> Callable[[str, str], Any]:
    """What is made by a method on a kind of host that is there, without a neighbour; each once."""
    return functools.cache(lambda kind, method: made(fresh_host, method))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_works_on_this_kind_of_host(
    host: Host, alone: Callable[[str, str], Any], kind: str, method: str
) -> None:
    pictures, noted, comments = alone(kind, method)
    assert noted.keys() & {"HiDiffusion", "HiDiffusion hires"}
    assert "HiDiffusion refused" not in noted
    assert "HiDiffusion" not in comments
    assert pictures != host.job(**JOB)[0]


def cases() -> Iterator[Any]:
    """Every neighbour beside every method, on one kind of host each in turn; the other kind is for longer runs."""
    for i, kind in enumerate(KINDS):
        for j, method in enumerate(METHODS):
            for k, neighbour in enumerate(NEIGHBOURS):
                marks = () if (j + k) % len(KINDS) == i else pytest.mark.slow
                yield pytest.param(kind, method, neighbour, marks=marks)


@pytest.mark.parametrize(("kind", "method", "neighbour"), list(cases()), indirect=["kind"])
def test_a_neighbour_that_changes_nothing_changes_nothing(
    host: Host, alone: Callable[[str, str], Any], kind: str, method: str, neighbour: str
) -> None:
    expected = alone(kind, method)
    with ExitStack() as stack:
        NEIGHBOURS[neighbour](stack)
        assert made(host, method) == expected
    assert host.said == []
