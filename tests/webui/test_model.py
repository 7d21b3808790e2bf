"""The UNet of a job's model, where A1111 and the Forge family keep it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

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


@pytest.mark.parametrize(("kind", "prediction"), [("v_prediction", "v"), ("epsilon", "noise"), ("const", "other")])
def test_forge_keeps_the_prediction_beside_the_unet(kind: str, prediction: str) -> None:
    model = SimpleNamespace(diffusion_model=UNET, predictor=SimpleNamespace(prediction_type=kind))
    forge = SimpleNamespace(unet=SimpleNamespace(model=model))
    assert find_model(job(forge_objects=forge)).prediction == prediction


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
