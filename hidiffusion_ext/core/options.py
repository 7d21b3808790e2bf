"""What a user can ask for.

`Options` is the only list of settings in the project: the panel, the API arguments, the infotext, the checks, the axes
and the Settings page are all made from its fields and their `Setting`s.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, cast


class Refused(ValueError):
    """What was asked for cannot be done; the message says why, in words that go into a sentence for the user."""


class OptionError(Refused):
    """A setting that cannot be used; the message is one sentence naming the setting, the value and what is allowed."""


class Choice(str, Enum):
    """One of several named values."""


class Method(Choice):
    """What keeps large pictures in one piece."""

    AUTO = "Auto"
    HIDIFFUSION = "HiDiffusion"
    SCALECRAFTER = "ScaleCrafter"
    NATIVE_FIRST = "Native first"
    RELAY = "Relay"


class Preset(Choice):
    """When and how strongly the method works. The numbers are in its planner."""

    AUTO = "Auto"
    X2 = "2x"
    X4 = "4x"
    TURBO = "Turbo"


class FasterSecondPass(Choice):
    """What is left out of passes over a picture. The numbers are in the parts."""

    OFF = "Off"
    ON = "On"
    SHORT = "Short first pass"
    INTERVAL = "No guidance at the end"
    DEEP_CACHE = "DeepCache"

    def has(self, piece: FasterSecondPass) -> bool:
        """Whether a piece is asked for, by itself or with all others."""
        return self in (FasterSecondPass.ON, piece)


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
        label: What its control is called.
        help: What one sees when one turns it, in a sentence or a few short ones.
        minimum, maximum, step: The allowed range of a number, both ends included; None for other types.
        advanced: Whether its control is folded away until one asks for it.
        key: What it is called in infotext, after "HiDiffusion", and on the axes of a plot: it stays when a label
            changes, so that pictures made before are still read. The label if left out.
        name: The option's name in the API and in `Options`.
    """

    default: Any
    label: str
    help: str
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    advanced: bool = False
    key: str = ""
    name: str = ""

    def parse(self, text: str) -> Any:
        """The value that a text in an infotext or a query stands for; if it is none, the text, to be refused."""
        if isinstance(self.default, bool):
            return {"true": True, "false": False}.get(text.strip().casefold(), text)
        if isinstance(self.default, (int, float)):
            for number in (int, float):
                with suppress(ValueError):
                    return number(text)
        return text

    def checked(self, value: Any) -> Any:
        """The value in the setting's own type.

        Raises:
            OptionError: if it is of another type or not allowed.
        """
        kind = cast(Any, type(self.default))
        if isinstance(self.default, Choice):
            for choice in kind:
                if isinstance(value, str) and value.casefold() == choice.value.casefold():
                    return choice
            raise self._refused(value, "one of " + ", ".join(choice.value for choice in kind))
        if kind is bool:
            if not isinstance(value, bool):
                raise self._refused(value, "true or false")
            return value
        allowed = f"{'a whole number' if kind is int else 'a number'} from {self.minimum:g} to {self.maximum:g}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._refused(value, allowed)
        if not self.minimum <= value <= self.maximum:  # type: ignore[operator]  # every number has both limits
            raise self._refused(value, allowed)
        if kind is int and value != int(value):
            raise self._refused(value, allowed)
        return kind(value)

    def _refused(self, value: object, allowed: str) -> OptionError:
        return OptionError(f"{self.name} = {quoted(value)} is not possible; allowed is {allowed}")


class _Short(reprlib.Repr):
    """Values cut to a line, with JSON's words for what Python calls otherwise."""

    def repr_NoneType(self, value: None, level: int) -> str:
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:
        return str(value).lower()


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def quoted(value: object) -> str:
    """A value as it is shown in a refusal: as the caller wrote it, cut if it is long or deep."""
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _option(
    default: Any,
    label: str,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    step: float | None = None,
    advanced: bool = False,
    key: str = "",
) -> Any:
    setting = Setting(default, label, help, minimum, maximum, step, advanced, key or label)
    return field(default=default, metadata={"setting": setting})


@dataclass(frozen=True)
class Options:
    """One job's settings; field order is the order of the positional API arguments.

    Raises:
        OptionError: from every constructor below, for an unknown key, a wrong type or a value out of range.
    """

    enabled: bool = _option(False, "Enabled", "Turns HiDiffusion on.")
    method: Method = _option(
        Method.AUTO,
        "Method",
        "Auto: HiDiffusion, or Native first where a picture is huge. Two heads: HiDiffusion, one pass, faster. Soft "
        "or plain: ScaleCrafter, no faster. Dented shapes: Native first, a small picture that hires fix enlarges and "
        "draws over. Relay: the same, within one pass.",
    )
    rau_net: bool = _option(
        True,
        "RAU-Net (one subject)",
        "One subject instead of several, and faster: the first steps lay the picture out as if it were small.",
        key="RAU-Net",
    )
    msw_msa: bool = _option(
        True,
        "MSW-MSA (faster)",
        "Faster: the finest layers look at four moving windows. Without it, slower and a little more consistent.",
        key="MSW-MSA",
    )
    dispersion: bool = _option(
        False,
        "Dispersed convolution",
        "ScaleCrafter at three times the native size and more: smoother large shapes.",
        advanced=True,
    )
    damped_guidance: bool = _option(
        True,
        "Noise-damped guidance",
        "ScaleCrafter at three times the native size and more: less noise; the steps take half as long again.",
        advanced=True,
    )
    preset: Preset = _option(
        Preset.AUTO,
        "Preset",
        "How long and how strongly it works. Auto: by size. 2x: for about twice the native side. 4x: for four times "
        "and more. Turbo: for SDXL-Turbo.",
    )
    t1: float = _option(
        0.0,
        "T1",
        "How long it works, a share of the noise. Still two heads: higher. Soft or plain: lower. 0: as the preset.",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        advanced=True,
    )
    t2: float = _option(
        0.0,
        "T2",
        "How long the picture is reduced a second time; for very large ones. 0: as the preset.",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        advanced=True,
    )
    passes: Passes = _option(
        Passes.BOTH, "Passes", "In which passes of a hires-fix job it works; img2img counts as a first pass."
    )
    native_size: int = _option(
        0,
        "Native size",
        "Pixels per side that the model was made for; only larger pictures are changed. 0: 512, 768 or 1024, by kind.",
        minimum=0,
        maximum=4096,
        step=64,
        advanced=True,
    )
    window_shift: WindowShift = _option(
        WindowShift.CYCLE,
        "Window shift",
        "Cycle: the same picture in any batch. Random: as in the paper; a picture changes with its batch.",
        advanced=True,
    )
    split_guidance: float = _option(
        1.0,
        "Split guidance",
        "Hires pass and img2img: guides small things by a multiple of the CFG scale. 1.5: crisper, above: speckled.",
        minimum=1.0,
        maximum=5.0,
        step=0.5,
        advanced=True,
    )
    anchor: float = _option(
        0.0,
        "Anchor",
        "Hires pass and img2img at strengths of 0.5 and more: holds large shapes where they were. 0: off. 1: fully.",
        minimum=0.0,
        maximum=1.0,
        step=0.1,
        advanced=True,
    )

    faster_second_pass: FasterSecondPass = _option(
        FasterSecondPass.ON,
        "Faster second pass",
        "Hires pass, img2img and Relay: leaves out work that hardly changes the picture. Off: leaves out none. The "
        "others: only that part of it.",
        advanced=True,
    )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Options:
        """Options from names and values, as in an API payload; what is left out keeps its default."""
        return cls(**_checked_all(values))

    @classmethod
    def from_args(cls, args: Sequence[Any]) -> Options:
        """Options from a script's positional arguments: one value per setting, in order.

        In the place of the first there may be a mapping of names and values, as for `from_mapping`; it overrides
        the positional arguments behind it.
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


def is_off(args: Sequence[Any]) -> bool:
    """Whether a script's positional arguments ask for nothing, so that no other of them counts: none, or one in the
    place of `enabled` that says no in any way (false, null, 0, an empty text)."""
    first = args[0] if args else None
    return not (cast("Mapping[str, Any]", first).get("enabled", True) if isinstance(first, Mapping) else first)


def plain(value: Any) -> Any:
    """A setting's value as JSON has it: the name of a choice, anything else as it is."""
    return value.value if isinstance(value, Choice) else value


def _checked_all(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values in their settings' own types."""
    for key in values:
        if key not in SETTINGS:
            raise OptionError(f"unknown setting {quoted(key)}; allowed are {', '.join(SETTINGS)}")
    return {key: SETTINGS[key].checked(value) for key, value in values.items()}
