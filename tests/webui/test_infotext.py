"""Infotext: what is written restores the panel when it is pasted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import server
from any_options import options
from hypothesis import given
from hypothesis import strategies as st

from hidiffusion_ext import __version__
from hidiffusion_ext.core import Method, Options
from hidiffusion_ext.core.options import SETTINGS, plain
from hidiffusion_ext.webui import infotext
from modules import scripts
from modules.infotext_utils import paste_fields, paste_values
from modules.processing import StableDiffusionProcessingTxt2Img, create_infotext

REPOSITORY = Path(__file__).resolve().parents[2]


class Page:
    """One tab of the host's page, with this extension's panel on it."""

    def __init__(self, tab: str) -> None:
        runner = scripts.scripts_img2img if tab == "img2img" else scripts.scripts_txt2img
        self.fields = paste_fields[tab]["fields"]
        self.controls = runner.script("HiDiffusion").controls

    def written(self, params: dict[str, Any]) -> str:
        """The infotext of a picture, as the host writes it."""
        p = StableDiffusionProcessingTxt2Img(prompt="a cat", negative_prompt="dog", seed=1, width=512, height=512)
        p.extra_generation_params, p.comments = params, {}
        p.sd_model_name, p.sd_model_hash = "model", "0123456789"
        return create_infotext(p, ["a cat"], [1], [1], all_negative_prompts=["dog"])

    def pasted(self, text: str) -> dict[str, Any]:
        """What each of the panel's controls becomes; those that stay as they are are left out."""
        updates = {id(field.component): update for field, update in zip(self.fields, paste_values(self.fields, text))}
        found = {name: updates[id(control)] for name, control in zip(SETTINGS, self.controls)}
        return {name: update["value"] for name, update in found.items() if "value" in update}


@pytest.fixture(scope="module", params=["txt2img", "img2img"])
def page(request: pytest.FixtureRequest) -> Page:
    server.create_app([REPOSITORY])
    return Page(request.param)


@given(value=options, hires=st.booleans())
def test_pasting_restores_the_panel_exactly(page: Page, value: Options, hires: bool) -> None:
    params: dict[str, Any] = {}
    infotext.write_active(params, value, "what was done, in words", hires=hires)
    panel = page.pasted(page.written(params))
    assert panel == {name: plain(getattr(value, name)) for name in SETTINGS} | {"enabled": True}


def test_the_keys_in_pictures_stay_as_they_are() -> None:
    """Pictures made by earlier versions are read with them, whatever the controls are called now."""
    assert [key.removeprefix("HiDiffusion ") for key in infotext.SETTING_KEYS.values()] == [
        "Method",
        "RAU-Net",
        "MSW-MSA",
        "Dispersed convolution",
        "Noise-damped guidance",
        "Preset",
        "T1",
        "T2",
        "Passes",
        "Native size",
        "Window shift",
        "Split guidance",
        "Anchor",
        "Faster second pass",
    ]


def test_only_what_is_not_default_is_written() -> None:
    params: dict[str, object] = {}
    infotext.write_active(params, Options(enabled=True), "MSW-MSA", hires=True)
    assert params == {"HiDiffusion hires": "MSW-MSA", "HiDiffusion version": __version__}


HOSTILE = [
    "",
    "-1",
    "nan",
    "1e999",
    "0x10",
    "1" * 500,
    "<img src=x onerror=alert(1)>",
    "True",
    "64x64",
    '"',
    "\\",
    ", :",
]


@given(params=st.dictionaries(st.sampled_from(infotext.ALL_KEYS), st.sampled_from(HOSTILE) | st.text()))
def test_whatever_is_pasted_the_panel_gets_only_what_it_allows(page: Page, params: dict[str, Any]) -> None:
    panel = page.pasted(page.written(params))
    Options.from_mapping(panel)
    assert panel["enabled"] or len(panel) == 1


@given(text=st.text() | st.from_regex(r"(HiDiffusion( T1| Preset| MSW-MSA)?: [^,]*, ){3,6}"))
def test_a_text_of_another_origin_sets_nothing_wrong(page: Page, text: str) -> None:
    Options.from_mapping(page.pasted(text or "a cat"))


def test_a_picture_without_it_switches_it_off_and_leaves_the_rest(page: Page) -> None:
    assert page.pasted(page.written({})) == {"enabled": False}


def test_a_picture_made_with_defaults_sets_every_control_to_its_default(page: Page) -> None:
    panel = page.pasted(page.written({"HiDiffusion": "MSW-MSA", "HiDiffusion T1": "", "HiDiffusion Preset": "8x"}))
    assert panel == {name: plain(setting.default) for name, setting in SETTINGS.items()} | {"enabled": True}


def test_a_pass_that_is_taken_back_takes_its_settings_along() -> None:
    params: dict[str, object] = {"Steps": 20}
    value = Options(enabled=True, msw_msa=False)
    infotext.write_active(params, value, "what was done", hires=False)
    infotext.write_active(params, value, "what was done", hires=True)
    infotext.clear(params, hires=False)
    assert params == {
        "Steps": 20,
        "HiDiffusion MSW-MSA": "False",
        "HiDiffusion hires": "what was done",
        "HiDiffusion version": __version__,
    }
    infotext.write_refused(params, "no UNet", hires=True)
    assert params == {"Steps": 20, "HiDiffusion refused": "no UNet"}
    infotext.forget(params)
    assert params == {"Steps": 20}


def test_passes_of_native_first_are_told_whatever_is_active_in_them() -> None:
    params: dict[str, Any] = {}
    value = Options(enabled=True, method=Method.NATIVE_FIRST)
    infotext.write_native_first(params, value, "512x512, then 1024x1024 at a strength of 0.4")
    infotext.write_active(params, value, "", hires=False)
    infotext.write_refused(params, "no UNet", hires=True)
    assert params["HiDiffusion Method"] == "Native first"
    assert infotext.reader(SETTINGS["enabled"])(params) is True
    infotext.forget(params)
    assert params == {}
    infotext.write_native_first(params, value, "")
    assert params == {}


def test_what_was_only_expected_is_taken_back_with_its_settings() -> None:
    params: dict[str, Any] = {}
    value = Options(enabled=True, method=Method.NATIVE_FIRST)
    infotext.write_native_first(params, value, infotext.Expected("512x512, then 1024x1024 at a strength of 0.4"))
    infotext.write_active(params, value, infotext.Expected("MSW-MSA"), hires=True)
    assert infotext.take_back(params) == [False, True]
    assert params == {}
