"""What a user can ask for.

`Options` is the only list of settings in the project: the panel, the API arguments, the infotext, the checks, the axes
and the Settings page are all made from its fields and their `Setting`s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, cast


class OptionError(ValueError):
    """A setting that cannot be used; the message is one sentence naming the setting, the value and what is allowed."""


class Choice(str, Enum):
    """One of several named values."""


class Method(Choice):
    """What keeps large pictures in one piece."""

    HIDIFFUSION = "HiDiffusion"
    SCALECRAFTER = "ScaleCrafter"


class Preset(Choice):
    """When and how strongly the method works. The numbers are in its planner."""

    AUTO = "Auto"
    X2 = "2x"
    X4 = "4x"
    TURBO = "Turbo"
    CUSTOM = "Custom"


class Passes(Choice):
    """Which sampling passes of a job are patched."""

    BOTH = "Both"
    FIRST = "First"
    HIRES = "Hires"


class WindowShift(Choice):
    """How MSW-MSA moves its windows from call to call."""

    CYCLE = "Cycle"
    RANDOM = "Random"


@dataclass(frozen=True)
class Setting:
    """How one option is shown and checked.

    Attributes:
        default: The value when nothing is said; its type is the option's type.
        label: Stable English name on the panel and, lower-cased after "HiDiffusion", in infotext.
        help: One sentence: what one sees when one turns it.
        minimum, maximum, step: The allowed range of a number, both ends included; None for other types.
        name: The option's name in the API and in `Options`.
    """

    default: Any
    label: str
    help: str
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    name: str = ""


def _option(
    default: Any,
    label: str,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    step: float | None = None,
) -> Any:
    return field(default=default, metadata={"setting": Setting(default, label, help, minimum, maximum, step)})


@dataclass(frozen=True)
class Options:
    """One job's settings; field order is the order of the positional API arguments.

    Raises:
        OptionError: from every constructor below, for an unknown key, a wrong type or a value out of range.
    """

    enabled: bool = _option(False, "Enabled", "Turns HiDiffusion on for this job.")
    method: Method = _option(
        Method.HIDIFFUSION,
        "Method",
        "HiDiffusion is faster; ScaleCrafter keeps the full resolution at every step and takes the time of no method.",
    )
    rau_net: bool = _option(
        True,
        "RAU-Net",
        "HiDiffusion: one object instead of several, by laying the picture out as if it were small. Much faster, too.",
    )
    msw_msa: bool = _option(
        True,
        "MSW-MSA",
        "Faster: self-attention at the finest level looks at four moving windows instead of the whole picture.",
    )
    dispersion: bool = _option(
        False,
        "Dispersed convolution",
        "ScaleCrafter, 4x preset: gentler re-dilation in the coarsest layers; smoother large shapes.",
    )
    damped_guidance: bool = _option(
        True,
        "Noise-damped guidance",
        "ScaleCrafter, 4x preset: cleaner pictures, less noise; each step takes half as long again.",
    )
    preset: Preset = _option(
        Preset.AUTO,
        "Preset",
        "Auto picks 2x or 4x from the size of the job; Turbo is for SDXL-Turbo; Custom uses T1 and T2 below.",
    )
    t1: float = _option(
        0.4,
        "T1",
        "Custom preset: the method works for this share of the steps. Higher: fewer repeated objects, less detail.",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
    )
    t2: float = _option(
        0.0,
        "T2",
        "Custom preset of HiDiffusion: a second, stronger reduction for this share of the steps; for huge pictures.",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
    )
    passes: Passes = _option(
        Passes.BOTH, "Passes", "Which passes of a hires-fix job are changed; img2img counts as a first pass."
    )
    native_size: int = _option(
        0,
        "Native size",
        "Side in pixels the model was trained at; 0 finds it (512, 768 for SD2.1 v-models, 1024 for SDXL).",
        minimum=0,
        maximum=4096,
        step=64,
    )
    window_shift: WindowShift = _option(
        WindowShift.CYCLE,
        "Window shift",
        "Cycle gives the same picture in any batch; with Random, as in the paper, the batch changes pictures.",
    )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Options:
        """Options from names and values, as in an API payload; what is left out keeps its default.

        T1 or T2 given without a preset selects the Custom preset, the only one that uses them.
        """
        return cls(**_checked_all(values))

    @classmethod
    def from_args(cls, args: Sequence[Any]) -> Options:
        """Options from a script's positional arguments: one value per setting, in order.

        In the place of the first there may be a mapping of names and values, as for `from_mapping`; it goes before the
        positional arguments behind it.
        """
        if len(args) > len(SETTINGS):
            raise OptionError(f"{len(args)} arguments given; at most {len(SETTINGS)} are allowed")
        by_name = dict(zip(SETTINGS, args))
        if not args or not isinstance(args[0], Mapping):
            return cls.from_mapping(by_name)
        first = cast("Mapping[str, Any]", by_name.pop(next(iter(SETTINGS))))
        return replace(cls.from_mapping(by_name), **_checked_all(first))

    def changed(self) -> dict[str, Any]:
        """The settings that differ from their defaults, as plain values."""
        values = {name: getattr(self, name) for name in SETTINGS}
        return {name: plain(value) for name, value in values.items() if value != SETTINGS[name].default}


SETTINGS: dict[str, Setting] = {f.name: replace(f.metadata["setting"], name=f.name) for f in fields(Options)}
"""Every option by name, in the order of the panel and of the positional arguments."""


def plain(value: Any) -> Any:
    """A setting's value as JSON has it: the name of a choice, anything else as it is."""
    return value.value if isinstance(value, Choice) else value


def from_text(setting: Setting, text: str) -> Any:
    """A setting's value in its own type, from text as `str` writes its plain value.

    Raises:
        OptionError: if the text means no value of this setting.
    """
    value: Any = text
    if isinstance(setting.default, bool):
        value = {"true": True, "false": False}.get(text.strip().casefold(), text)
    elif isinstance(setting.default, (int, float)):
        try:
            value = float(text)
        except ValueError:
            value = text
    return _checked(setting, value)


def _checked_all(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values in their settings' own types; T1 or T2 without a preset adds the Custom preset."""
    for key in values:
        if key not in SETTINGS:
            raise OptionError(f"unknown setting {_quoted(key)}; allowed are {', '.join(SETTINGS)}")
    checked = {key: _checked(SETTINGS[key], value) for key, value in values.items()}
    if "preset" not in checked and checked.keys() & {"t1", "t2"}:
        checked["preset"] = Preset.CUSTOM
    return checked


def _checked(setting: Setting, value: Any) -> Any:
    """The value in the setting's own type, or OptionError."""
    kind = cast(Any, type(setting.default))
    if isinstance(setting.default, Choice):
        for choice in kind:
            if isinstance(value, str) and value.casefold() == choice.value.casefold():
                return choice
        raise _refused(setting, value, "one of " + ", ".join(choice.value for choice in kind))
    if kind is bool:
        if not isinstance(value, bool):
            raise _refused(setting, value, "true or false")
        return value
    allowed = f"{'a whole number' if kind is int else 'a number'} from {setting.minimum:g} to {setting.maximum:g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _refused(setting, value, allowed)
    if not math.isfinite(value) or (kind is int and value != int(value)):
        raise _refused(setting, value, allowed)
    if not setting.minimum <= value <= setting.maximum:  # type: ignore[operator]  # every number has both limits
        raise _refused(setting, value, allowed)
    return kind(value)


def _refused(setting: Setting, value: object, allowed: str) -> OptionError:
    return OptionError(f"{setting.name} = {_quoted(value)} is not possible; allowed is {allowed}")


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
