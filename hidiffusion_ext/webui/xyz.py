"""Axes for the host's X/Y/Z plot, one per setting: "[HiDiffusion] T1" and so on.

An axis changes the arguments of its cell's job, so that a cell is what a job of its own with these arguments would be,
and other extensions see the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from modules import scripts

from ..core.options import SETTINGS, Choice, Setting, plain
from .script import HiDiffusionScript

PLOTS = ("xyz_grid.py", "scripts.xyz_grid")
"""What the hosts call the module of the plot."""


def add_axes() -> None:
    """Adds the axes to the plot of a host that has one; a second call changes nothing."""
    for plot in [data.module for data in scripts.scripts_data if data.script_class.__module__ in PLOTS]:
        known = {axis.label for axis in plot.axis_options}
        axes = [_axis(plot.AxisOption, setting) for setting in SETTINGS.values()]
        plot.axis_options += [axis for axis in axes if axis.label not in known]


def _axis(make: Any, setting: Setting) -> Any:
    """One axis; numbers keep their type, for which the plot reads ranges such as 0.2-0.8 (+0.2)."""
    number = type(setting.default) in (int, float)
    return make(
        f"[HiDiffusion] {setting.key}",
        type(setting.default) if number else str,
        partial(_apply, setting),
        confirm=partial(_confirm, setting),
        choices=None if number else partial(_choices, setting),
    )


def _choices(setting: Setting) -> list[str]:
    if isinstance(setting.default, Choice):
        return [choice.value for choice in type(setting.default)]
    return ["True", "False"]


def _confirm(setting: Setting, p: Any, xs: Sequence[Any]) -> None:
    """Raises OptionError, before the first picture, for a value that is not possible."""
    for x in xs:
        _value(setting, x)


def _apply(setting: Setting, p: Any, x: Any, xs: Sequence[Any]) -> None:
    """Changes one setting in the arguments of one cell's job."""
    args = list(p.script_args)
    place = next(script.args_from for script in p.scripts.alwayson_scripts if isinstance(script, HiDiffusionScript))
    values = args[place] if isinstance(args[place], Mapping) else {"enabled": args[place]}
    args[place] = {**values, setting.name: plain(_value(setting, x))}
    p.script_args = args


def _value(setting: Setting, x: Any) -> Any:
    """The setting's value; a number as the plot's legend shows it, rounded where a range is not exact."""
    return setting.checked(setting.parse(str(round(x, 8) if isinstance(x, float) else x)))
