"""Infotext: what is written restores the panel when it is pasted."""

from __future__ import annotations

import pytest
from hypothesis import given
from test_options import options

from hidiffusion_ext.core import Options
from hidiffusion_ext.core.options import SETTINGS
from hidiffusion_ext.webui import infotext
from modules.infotext_utils import parse_generation_parameters, quote


def pasted(params: dict[str, object]) -> dict[str, object]:
    """What each control is set to when the host pastes a picture's infotext."""
    listed = ", ".join(f"{key}: {quote(str(value))}" for key, value in params.items())
    parsed = parse_generation_parameters(f"a cat\nSteps: 20, Seed: 1, {listed}, Size: 512x512")
    return {name: infotext.reader(setting)(parsed) for name, setting in SETTINGS.items()}


@given(options)
def test_pasting_restores_every_setting(value: Options) -> None:
    params: dict[str, object] = {}
    infotext.write_active(params, value, "RAU-Net until 40%, MSW-MSA", hires=False)
    controls = pasted(params)
    assert controls.pop("enabled") is True
    assert Options.from_mapping({"enabled": value.enabled, **controls}) == value


def test_only_what_is_not_default_is_written() -> None:
    params: dict[str, object] = {}
    infotext.write_active(params, Options(enabled=True), "MSW-MSA", hires=True)
    assert params == {"HiDiffusion hires": "MSW-MSA"}


def test_a_picture_without_it_switches_it_off_and_leaves_the_rest() -> None:
    assert pasted({}) == {name: False if name == "enabled" else None for name in SETTINGS}


@pytest.mark.parametrize(
    "text", ["", "abc", "9", "-1", "nan", "inf", "1" * 500, "<img src=x onerror=alert(1)>", "True"]
)
def test_values_that_make_no_sense_become_the_default(text: str) -> None:
    keys = dict.fromkeys(infotext.SETTING_KEYS.values(), text)
    controls = pasted({"HiDiffusion": "MSW-MSA", **keys})
    for name, setting in SETTINGS.items():
        if name != "enabled":
            Options.from_mapping({name: controls[name]})
            assert type(controls[name]) is type(getattr(setting.default, "value", setting.default))


def test_a_pass_that_is_taken_back_takes_its_settings_along() -> None:
    params: dict[str, object] = {"Steps": 20}
    value = Options(enabled=True, msw_msa=False)
    infotext.write_active(params, value, "RAU-Net until 40%", hires=False)
    infotext.write_active(params, value, "RAU-Net until 40%", hires=True)
    infotext.clear(params, hires=False)
    assert params == {"Steps": 20, "HiDiffusion MSW-MSA": "False", "HiDiffusion hires": "RAU-Net until 40%"}
    infotext.write_refused(params, "no UNet", hires=True)
    assert params == {"Steps": 20, "HiDiffusion refused": "no UNet"}
