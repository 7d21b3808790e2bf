"""What a picture's infotext says about HiDiffusion, and how a pasted infotext sets the panel.

    HiDiffusion: "RAU-Net until step 8 of 20, MSW-MSA"     what was active in the first (or only) pass
    HiDiffusion hires: ...                                 what was active in the hires pass
    HiDiffusion refused: ...                               why nothing could be done, or no more from a step on
    HiDiffusion T1: 0.5                                    every setting that was not at its default
    HiDiffusion version: 0.2.0.dev0                        which version of this extension made the picture

Nothing is written when nothing was active.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import __version__
from ..core.options import SETTINGS, OptionError, Options, Setting, plain

FIRST_PASS = "HiDiffusion"
HIRES_PASS = "HiDiffusion hires"
REFUSED = "HiDiffusion refused"
VERSION = "HiDiffusion version"

SETTING_KEYS = {name: f"HiDiffusion {setting.key}" for name, setting in SETTINGS.items() if name != "enabled"}
"""Setting name -> infotext key; that HiDiffusion was enabled is told by the keys above."""

ALL_KEYS = [FIRST_PASS, HIRES_PASS, REFUSED, *SETTING_KEYS.values(), VERSION]


class Expected(str):
    """A description of a pass that has not begun."""


def forget(params: dict[str, Any]) -> None:
    """Takes out what an earlier job left: the cells of an X/Y/Z plot are copies that share one dictionary."""
    for key in ALL_KEYS:
        params.pop(key, None)


def write_active(params: dict[str, Any], options: Options, description: str, *, hires: bool) -> None:
    """Notes what is active in a pass, and the settings needed to get it again; an empty description: nothing is."""
    if not description:
        clear(params, hires=hires)
        return
    params[HIRES_PASS if hires else FIRST_PASS] = description
    for name, value in options.changed().items():
        if name in SETTING_KEYS:
            params[SETTING_KEYS[name]] = str(value)
    params[VERSION] = __version__


def write_refused(params: dict[str, Any], reason: str, *, hires: bool) -> None:
    """Notes that a pass runs unchanged although more was asked for, and why."""
    clear(params, hires=hires)
    params[REFUSED] = reason


def add_refused(params: dict[str, Any], reason: str) -> None:
    """Notes that a pass runs unchanged from somewhere on, and why; what was active until then stays noted."""
    params[REFUSED] = reason


def take_back(params: dict[str, Any]) -> list[bool]:
    """Takes back what is still only expected; the passes it was expected of, as `hires=` has them."""
    found = [key == HIRES_PASS for key in (FIRST_PASS, HIRES_PASS) if isinstance(params.get(key), Expected)]
    for hires in found:
        clear(params, hires=hires)
    return found


def clear(params: dict[str, Any], *, hires: bool) -> None:
    """Takes back what was noted for a pass; the settings go when no pass is left."""
    params.pop(HIRES_PASS if hires else FIRST_PASS, None)
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
    return FIRST_PASS in params or HIRES_PASS in params


def _value(setting: Setting, text: str | None) -> Any:
    """A setting's plain value from its text; the default where the text is missing or makes no sense."""
    try:
        return plain(setting.checked(setting.parse(text or "")))
    except OptionError:
        return plain(setting.default)
