"""The UNet of a job's model, where A1111 and the Forge family keep it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from hidiffusion_ext.hosts.model import NoUNet, find_model

UNET = nn.Identity()


def job(**sd_model: object) -> SimpleNamespace:
    return SimpleNamespace(sd_model=SimpleNamespace(**sd_model))


def wrapped(unet: object) -> SimpleNamespace:
    return SimpleNamespace(diffusion_model=unet)


def test_the_unet_of_each_host() -> None:
    assert find_model(job(model=wrapped(UNET))).unet is UNET
    forge = SimpleNamespace(unet=SimpleNamespace(model=wrapped(UNET)))
    assert find_model(job(forge_objects=forge, model=wrapped(None))).unet is UNET


def test_a_controlnet_is_seen_where_the_forge_family_attaches_it() -> None:
    def patcher(**more: object) -> SimpleNamespace:
        return SimpleNamespace(unet=SimpleNamespace(model=wrapped(UNET), **more))

    assert find_model(job(forge_objects=patcher(controlnet_linked_list=object()))).controlnet
    assert not find_model(job(forge_objects=patcher(controlnet_linked_list=None))).controlnet
    assert not find_model(job(model=wrapped(UNET))).controlnet


def test_a_compiled_unet_is_unwrapped() -> None:
    compiled = nn.Module()
    compiled._orig_mod = UNET
    assert find_model(job(model=wrapped(compiled))).unet is UNET


def test_name_and_prediction() -> None:
    info = SimpleNamespace(name="v2-1_768.safetensors")
    model = find_model(job(model=wrapped(UNET), sd_checkpoint_info=info, parameterization="v"))
    assert (model.name, model.prediction) == ("v2-1_768.safetensors", "v")
    assert find_model(job(model=wrapped(UNET))).prediction == "noise"


@pytest.mark.parametrize(
    ("name", "metadata", "title"),
    [
        ("playground/juggernaut.safetensors", {}, "juggernaut.safetensors"),
        ("mine\\playground-v2.safetensors", None, "playground-v2.safetensors"),
        ("renamed.safetensors", {"modelspec.title": "Playground v2"}, "Playground v2"),
    ],
)
def test_a_file_says_what_it_is_and_its_folder_does_not(name: str, metadata: Any, title: str) -> None:
    info = SimpleNamespace(name=name, metadata=metadata)
    assert find_model(job(model=wrapped(UNET), sd_checkpoint_info=info)).title == title


class Sampling:
    """What the Forge family has beside a UNet, with its arithmetic; `denoised` is of (latent, answer, sigma)."""

    def __init__(self, denoised: Callable[[Any, Any, Any], Any], scaled: bool = True) -> None:
        self.denoised, self.scaled = denoised, scaled

    def calculate_input(self, sigma: Any, noise: Any) -> Any:
        return noise / (sigma.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5 if self.scaled else noise

    def calculate_denoised(self, sigma: Any, model_output: Any, model_input: Any) -> Any:
        return self.denoised(model_input, model_output, sigma.view(-1, 1, 1, 1))


SAMPLINGS: dict[str, tuple[Sampling, str]] = {
    "noise": (Sampling(lambda x, answer, sigma: x - answer * sigma), "noise"),
    "consistency": (Sampling(lambda x, answer, sigma: (x - answer * sigma) * (1 - 1e-8) + x * 1e-8), "noise"),
    "v": (Sampling(lambda x, answer, sigma: x / (sigma**2 + 1) - answer * sigma / (sigma**2 + 1) ** 0.5), "v"),
    "EDM": (Sampling(lambda x, answer, sigma: x / (sigma**2 + 1) + answer * sigma / (sigma**2 + 1) ** 0.5), "other"),
    "clean": (Sampling(lambda x, answer, sigma: answer), "other"),
    "flow": (Sampling(lambda x, answer, sigma: x - answer * sigma, scaled=False), "other"),
    "fails": (Sampling(lambda x, answer, sigma: x.nothing), "other"),
}


@pytest.mark.parametrize("where", ["predictor", "model_sampling"])
@pytest.mark.parametrize("kind", SAMPLINGS)
@pytest.mark.parametrize("parameterization", ["eps", "v"])
def test_the_forge_family_is_asked_what_it_takes_the_answers_for(kind: str, where: str, parameterization: str) -> None:
    """Also where another extension has it changed for a pass, and the model still says what it was loaded as."""
    sampling, prediction = SAMPLINGS[kind]
    model = SimpleNamespace(diffusion_model=UNET, **{where: sampling})
    forge = SimpleNamespace(unet=SimpleNamespace(model=model))
    assert find_model(job(forge_objects=forge, parameterization=parameterization)).prediction == prediction


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": wrapped(None)}, {"model": wrapped("flux")}])
def test_a_model_without_a_unet_is_refused(model: dict) -> None:
    with pytest.raises(NoUNet, match=r"SimpleNamespace.*no UNet"):
        find_model(job(**model))


def test_a_substitute_for_the_unet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class TrtUnet:
        pass

    monkeypatch.setitem(sys.modules, "modules.sd_unet", SimpleNamespace(current_unet=TrtUnet()))
    with pytest.raises(NoUNet, match="TrtUnet computes in place"):
        find_model(job(model=wrapped(UNET)))
