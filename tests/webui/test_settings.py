"""The Settings page: defaults that reach the panel and incomplete API payloads, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import server

from hidiffusion_ext.core import Options, Preset
from hidiffusion_ext.core.options import SETTINGS, plain
from hidiffusion_ext.webui import settings
from hidiffusion_ext.webui.log import logger
from modules import scripts, shared

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def chosen() -> Iterator[dict[str, Any]]:
    """The host's stored settings, put back afterwards."""
    server.create_app([REPOSITORY])
    before = dict(shared.opts.data)
    yield shared.opts.data
    shared.opts.data.clear()
    shared.opts.data.update(before)
    server.reload_app()


def controls() -> list[Any]:
    return scripts.scripts_txt2img.script("HiDiffusion").controls


def test_every_setting_has_a_default_that_the_page_can_show() -> None:
    with gr.Blocks():
        for name, setting in SETTINGS.items():
            option = shared.opts.data_labels[f"hidiffusion_{name}"]
            assert option.section == ("hidiffusion", "HiDiffusion")
            shown = option.component(label=option.label, value=option.default, **option.component_args)
            assert shown.value == plain(setting.default)


def test_the_panel_starts_with_the_defaults_and_they_stay_out_of_the_hosts_file(chosen: dict[str, Any]) -> None:
    assert [control.value for control in controls()] == [plain(setting.default) for setting in SETTINGS.values()]
    chosen.update(hidiffusion_enabled=True, hidiffusion_preset="4x", hidiffusion_native_size=768.0)
    server.reload_app()
    assert Options.from_args([control.value for control in controls()]) == Options(
        True, preset=Preset.X4, native_size=768
    )
    accordion = controls()[0].accordion
    assert accordion.open
    assert all(control.do_not_save_to_config for control in [accordion, *controls()])


def test_an_api_payload_goes_before_the_defaults(chosen: dict[str, Any]) -> None:
    chosen.update(hidiffusion_enabled=True, hidiffusion_preset="4x", hidiffusion_msw_msa=False)
    server.reload_app()
    behind = [control.value for control in controls()]
    assert Options.from_args(behind) == Options(True, preset=Preset.X4, msw_msa=False)
    assert Options.from_args([False, *behind[1:]]).enabled is False
    for given in ({}, {"enabled": True, "preset": "Auto", "msw_msa": True}, {"enabled": True, "t1": 0.5}):
        options = Options.from_args([given, *behind[1:]])
        assert all(getattr(options, name) == value for name, value in given.items())
    assert Options.from_args([{"enabled": True, "t1": 0.5}, *behind[1:]]).preset is Preset.X4


def test_a_stored_value_that_cannot_be_used_is_not_used(chosen: dict[str, Any]) -> None:
    chosen.update(hidiffusion_t1=7, hidiffusion_preset="8x", hidiffusion_enabled="yes")
    server.reload_app()
    assert Options.from_args([control.value for control in controls()]) == Options()


def test_the_console_can_be_quiet_but_not_about_problems(
    chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(logger.handlers[0], "emit", lambda record: said.append(record.levelname))
    for on in (True, False):
        chosen[settings.CONSOLE] = on
        logger.info("a pass")
        logger.warning("a problem")
    assert said == ["INFO", "WARNING", "WARNING"]
