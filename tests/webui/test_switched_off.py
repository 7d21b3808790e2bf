"""Jobs of the stand-in in which the model cannot be run with HiDiffusion: what they make and what they say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from job_host import HIRES, SCALECRAFTER, Host
from snapshot import snapshot
from told import parts_of

from hidiffusion_ext.core.parts.part import WHOLE
from hidiffusion_ext.webui import account, infotext
from hidiffusion_ext.webui.log import NOT_YOURS
from modules import script_callbacks, sd_samplers_common, shared

HIDIFFUSION = {"RAU-Net": (1, 2, 4), "MSW-MSA": WHOLE}


def switched_off(step: int, steps: int = 4) -> str:
    """What is said of a pass that is made without us from a step on, as the sizes of tensors do not match."""
    raised = "RuntimeError: Sizes of tensors must match"
    return f"switched off in step {step} of {steps}: the model could not be run with it ({raised})"


@contextmanager
def failing(error: BaseException, *, from_call: int = 1, unpatched: bool = False) -> Iterator[list[bool]]:
    """The UNet fails in its calls with HiDiffusion (or in all) from a given one on; whether each call was patched."""
    unet = shared.sd_model.model.diffusion_model
    calls: list[bool] = []

    def fail(module: torch.nn.Module, *_: Any) -> None:
        calls.append(len(module._forward_pre_hooks) > 0)
        torch.rand(3)
        if (calls[-1] or unpatched) and len(calls) >= from_call:
            raise error

    handle = unet.register_forward_hook(fail)
    try:
        yield calls
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("settings", "payload"),
    [
        ({}, {}),
        (SCALECRAFTER, {}),
        ({"window_shift": "Random"}, {}),
        ({}, {"sampler_name": "DDIM"}),
        (SCALECRAFTER, {"sampler_name": "Heun"}),
    ],
)
def test_a_first_call_that_fails_gives_the_picture_without_us(
    host: Host, settings: dict[str, Any], payload: dict[str, Any]
) -> None:
    evaluations: list[int] = []
    script_callbacks.on_cfg_denoiser(lambda params: evaluations.append(params.denoiser.step))
    try:
        plain, _, _ = host.job(**payload)
        counted = evaluations[:]
        evaluations.clear()
        state = snapshot(shared.sd_model.model.diffusion_model)
        with failing(RuntimeError("Sizes of tensors must match")) as calls:
            pictures, noted, _ = host.job(settings, **payload)
    finally:
        script_callbacks.callback_map["callbacks_cfg_denoiser"].pop()
    assert pictures == plain
    assert evaluations == counted
    assert calls == [True] * 2 + [False] * (len(calls) - 2)  # all of it, MSW-MSA alone, nothing
    assert snapshot(shared.sd_model.model.diffusion_model) == state
    assert "apply_model" not in vars(shared.sd_model)
    steps = 3 if payload.get("sampler_name") == "DDIM" else 4  # DDIM makes one less than it is asked for
    assert noted == {"HiDiffusion refused": switched_off(1, steps)}
    (said,) = host.said
    assert said.startswith(f"{switched_off(1, steps)}\nTraceback")
    assert ", in fail" in said


def test_what_was_done_until_then_is_told(host: Host) -> None:
    with failing(RuntimeError("Sizes of tensors must match"), from_call=3) as calls:
        pictures, noted, _ = host.job({"t1": 1.0})
    assert calls == [True] * 4 + [False] * 2
    assert parts_of(noted["HiDiffusion"]) == {"RAU-Net": (1, 2, 4), "MSW-MSA": (1, 2, 4)}
    assert noted["HiDiffusion refused"] == switched_off(3)
    assert pictures not in (host.job()[0], host.job({"t1": 1.0})[0])


def test_each_pass_and_each_batch_stands_for_itself(host: Host) -> None:
    with failing(RuntimeError("Sizes of tensors must match"), from_call=5):
        _, noted, _ = host.job({}, **HIRES, denoising_strength=1.0)
    assert "HiDiffusion" not in noted
    assert "HiDiffusion hires" not in noted
    assert noted["HiDiffusion refused"] == switched_off(1)
    with failing(RuntimeError("Sizes of tensors must match"), from_call=4):
        pictures, noted, _ = host.job({}, n_iter=2)
    assert noted["HiDiffusion refused"] == switched_off(1)
    assert len(pictures) >= 2
    assert len(host.said) == 2
    _, noted, _ = host.job({})
    assert parts_of(noted["HiDiffusion"]) == HIDIFFUSION
    assert host.said == []


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("not ours")])
def test_what_is_the_hosts_fails_as_without_us(host: Host, error: Exception) -> None:
    state = snapshot(shared.sd_model.model.diffusion_model)
    with failing(error, unpatched=True) as calls:
        host.job({})
    assert host.status == 500
    assert calls == ([True, True, False] if type(error) is RuntimeError else [True])
    assert host.said == []
    assert snapshot(shared.sd_model.model.diffusion_model) == state
    assert "apply_model" not in vars(shared.sd_model)


def test_an_interrupt_in_the_model_is_an_interrupt(host: Host) -> None:
    with failing(sd_samplers_common.InterruptedException(), from_call=2, unpatched=True) as calls:
        pictures, noted, _ = host.job({})
    assert calls == [True, True]
    assert len(pictures) == 1
    assert parts_of(noted["HiDiffusion"]) == HIDIFFUSION
    assert "HiDiffusion refused" not in noted
    assert host.said == []


@contextmanager
def knowing_one_size() -> Iterator[None]:
    """Another extension takes the features of the middle block for an eighth of the latent's, as smoothed energy
    guidance does.
    """

    def reshape(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        args[0].reshape(*args[0].shape[:2], 2, 2)

    handle = shared.sd_model.model.diffusion_model.middle_block.register_forward_pre_hook(reshape)
    try:
        yield
    finally:
        handle.remove()


def test_what_a_neighbour_stumbles_over_is_left_out_and_the_rest_is_kept(host: Host) -> None:
    windows, _, _ = host.job({"rau_net": False})
    with knowing_one_size():
        pictures, noted, _ = host.job({})
    assert pictures == windows
    assert parts_of(noted["HiDiffusion"]) == {"MSW-MSA": WHOLE}
    assert noted["HiDiffusion refused"].startswith("no RAU-Net from step 1 of 4 on, as that failed (RuntimeError: ")
    (said,) = host.said
    assert "Traceback" in said


def test_a_report_that_fails_costs_no_picture(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, _, _ = host.job({})

    def fail(*args: Any, **kwargs: Any) -> str:
        raise ValueError("no words")

    with monkeypatch.context() as patch:
        patch.setattr(account, "describe", fail)
        assert host.job({})[0] == pictures
    assert host.said == [NOT_YOURS]
    with monkeypatch.context() as patch, failing(RuntimeError("Sizes of tensors must match")):
        patch.setattr(infotext, "add_refused", fail)
        assert host.job({})[0] == host.job()[0]
        assert host.status == 200
