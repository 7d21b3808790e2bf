"""The axes on the host's X/Y/Z plot: there once, and changing nothing but their own cell."""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import server

from hidiffusion_ext.core import Options, Preset
from hidiffusion_ext.core.options import SETTINGS
from hidiffusion_ext.webui import xyz
from modules import scripts

REPOSITORY = Path(__file__).resolve().parents[2]
LABELS = [f"[HiDiffusion] {setting.key}" for setting in SETTINGS.values()]


def axes() -> list[Any]:
    plot = next(data.module for data in scripts.scripts_data if data.script_class.__module__ == "xyz_grid.py")
    return [axis for axis in plot.axis_options if axis.label.startswith("[HiDiffusion]")]


def job(*args: Any) -> Any:
    """A job of the page with the arguments of every script on it; the given ones are this extension's."""
    runner = scripts.scripts_txt2img
    values = [getattr(control, "value", 0) for control in runner.inputs]
    for script in runner.alwayson_scripts:
        values[script.args_from : script.args_from + len(args)] = args
    return SimpleNamespace(scripts=runner, script_args=tuple(values))


def options(p: Any) -> Options:
    """What the extension is asked for."""
    (script,) = p.scripts.alwayson_scripts
    return Options.from_args(p.script_args[script.args_from : script.args_to])


def cell(p: Any, **values: Any) -> Any:
    """A cell of the plot, made as the host makes one."""
    pc = copy(p)
    for axis, name in zip(axes(), SETTINGS):
        if name in values:
            axis.apply(pc, values[name], [values[name]])
    return pc


def test_the_axes_are_there_once_however_often_the_page_is_loaded() -> None:
    server.create_app([REPOSITORY])
    assert [axis.label for axis in axes()] == LABELS
    server.reload_app()
    assert [axis.label for axis in axes()] == LABELS
    xyz.add_axes()
    assert [axis.label for axis in axes()] == LABELS


def test_a_host_without_the_plot_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "scripts_data", [])
    xyz.add_axes()


def test_an_axis_changes_its_own_cell() -> None:
    server.create_app([REPOSITORY])
    p = job(True)
    before = p.script_args
    assert options(cell(p, enabled="False")) == Options()
    assert options(cell(p, t1=0.6, msw_msa="false")) == Options(True, msw_msa=False, t1=0.6)
    assert p.script_args == before
    assert options(p) == Options(enabled=True)


def test_axes_together_mean_the_same_in_any_order() -> None:
    server.create_app([REPOSITORY])
    p, given = job(True), {"t1": 0.6, "preset": "2x"}
    assert options(cell(cell(p, t1=0.6), preset="2x")) == options(cell(cell(p, preset="2x"), t1=0.6))
    assert options(cell(p, **given)) == Options(True, preset=Preset.X2, t1=0.6)
    json.dumps(cell(p, **given).script_args)


def test_an_object_from_a_program_keeps_its_values() -> None:
    server.create_app([REPOSITORY])
    p = job({"enabled": True, "t2": 0.2})
    assert options(cell(p, t1=0.3)) == Options(True, t1=0.3, t2=0.2)


def test_a_legend_shows_the_value_that_is_used() -> None:
    server.create_app([REPOSITORY])
    p, t1 = job(True), axes()[list(SETTINGS).index("t1")]
    inexact = 0.2 + 0.2 + 0.2
    assert t1.format_value(p, t1, inexact) == "[HiDiffusion] T1: 0.6"
    assert options(cell(p, t1=inexact)).t1 == 0.6
    assert t1.type is float
    assert axes()[list(SETTINGS).index("preset")].choices() == ["Auto", "2x", "4x", "Turbo"]
