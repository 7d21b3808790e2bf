"""What a picture's infotext says about HiDiffusion, and how a pasted infotext sets the panel.

    HiDiffusion: "RAU-Net until step 8 of 20, MSW-MSA"     what was active in the first (or only) pass
    HiDiffusion native first: "512x512, then ..."          the passes, where Native first made two of one
    HiDiffusion first pass: "16 of 20 steps"               where the first pass was not made to its end
    HiDiffusion hires: ...                                 what was active in the hires pass
    HiDiffusion refused: ...                               why nothing could be done, or no more from a step on
    HiDiffusion T1: 0.5                                    every setting that was not at its default
    HiDiffusion version: 0.2.0                             which version of this extension made the picture

Nothing is written when nothing was active.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import __version__
from ..core.options import SETTINGS, OptionError, Options, Setting, plain

FIRST_PASS = "HiDiffusion"
HIRES_PASS = "HiDiffusion hires"
NATIVE_FIRST = "HiDiffusion native first"
FIRST_STEPS = "HiDiffusion first pass"
REFUSED = "HiDiffusion refused"
VERSION = "HiDiffusion version"

SETTING_KEYS = {name: f"HiDiffusion {setting.key}" for name, setting in SETTINGS.items() if name != "enabled"}
"""Setting name -> infotext key; that HiDiffusion was enabled is told by `WHAT_WAS_DONE`."""

WHAT_WAS_DONE = [NATIVE_FIRST, FIRST_STEPS, FIRST_PASS, HIRES_PASS]
"""The keys of which each says that HiDiffusion was enabled."""

ALL_KEYS = [*WHAT_WAS_DONE, REFUSED, *SETTING_KEYS.values(), VERSION]


class Expected(str):
    """A description of a pass, or of passes, not yet begun."""


def forget(params: dict[str, Any]) -> None:
    """Takes out what an earlier job left: the cells of an X/Y/Z plot are copies that share one dictionary."""
    for key in ALL_KEYS:
        params.pop(key, None)


def write_active(params: dict[str, Any], options: Options, description: str, *, hires: bool) -> None:
    """Notes what is active in a pass, and the settings needed to get it again; an empty description: nothing is."""
    if not description:
        clear(params, hires=hires)
        return
    _write(params, HIRES_PASS if hires else FIRST_PASS, options, description)


def write_native_first(params: dict[str, Any], options: Options, passes: str) -> None:
    """Notes which passes Native first made of a job's one, whatever is active in them; none: nothing is noted."""
    if passes:
        _write(params, NATIVE_FIRST, options, passes)


def write_steps(params: dict[str, Any], options: Options, made: int, steps: int) -> int:
    """Notes how many steps of the first pass are made, if not all; returns that number."""
    if made < steps:
        _write(params, FIRST_STEPS, options, f"{made} of {steps} steps")
    return made


def _write(params: dict[str, Any], key: str, options: Options, text: str) -> None:
    params[key] = text
    for name, value in options.changed().items():
        if name in SETTING_KEYS:
            params[SETTING_KEYS[name]] = str(value)
    params[VERSION] = __version__


def write_refused(params: dict[str, Any], reason: str, *, hires: bool) -> None:
    """Notes that a pass runs unchanged although more was asked for, and why."""
    clear(params, hires=hires)
    params[REFUSED] = reason


def add_refused(params: dict[str, Any], reason: str) -> None:
    """Notes that a pass runs with less, or unchanged, from somewhere on, and why; what was noted so far stays."""
    noted = params.get(REFUSED)
    params[REFUSED] = f"{noted}; {reason}" if noted else reason


def take_back(params: dict[str, Any]) -> list[bool]:
    """Takes back what is still only expected; the passes it was expected of, as `hires=` has them."""
    expected = [key for key in WHAT_WAS_DONE if isinstance(params.get(key), Expected)]
    for key in expected:
        del params[key]
    _clear_settings(params)
    return [key == HIRES_PASS for key in expected]


def clear(params: dict[str, Any], *, hires: bool) -> None:
    """Takes back what was noted for a pass; the settings go when no pass is left."""
    params.pop(HIRES_PASS if hires else FIRST_PASS, None)
    _clear_settings(params)


def _clear_settings(params: dict[str, Any]) -> None:
    if not _active(params):
        for key in (*SETTING_KEYS.values(), VERSION):
            params.pop(key, None)


def reader(setting: Setting) -> Callable[[Mapping[str, str]], Any]:
    """How a pasted infotext sets one control.

    The returned function gives the control's new value, or None to leave it as it is: a picture made without
    HiDiffusion switches it off and leaves the other controls alone.
    """
    if setting.name == "enabled":
        return _active

    def read(params: Mapping[str, str]) -> Any:
        return _value(setting, params.get(SETTING_KEYS[setting.name])) if _active(params) else None

    return read


def _active(params: Mapping[str, Any]) -> bool:
    return any(key in params for key in WHAT_WAS_DONE)


def _value(setting: Setting, text: str | None) -> Any:
    """A setting's plain value from its text; the default where the text is missing or makes no sense."""
    try:
        return plain(setting.checked(setting.parse(text or "")))
    except OptionError:
        return plain(setting.default)
