"""What a text says of a pass, as data: how it says that is looked at in `test_words` alone."""

from __future__ import annotations

import re

from plans import PARTS

from hidiffusion_ext.core import Span
from hidiffusion_ext.core.parts.anchor import Anchor
from hidiffusion_ext.core.parts.guidance_interval import GuidanceInterval
from hidiffusion_ext.core.parts.part import WHOLE
from hidiffusion_ext.core.parts.split_guidance import SplitGuidance

Steps = tuple[int, int, int]
"""A first and a last step, from 1, and of how many."""

NAME = "|".join(PARTS)
STEP = r"step (\d+) of (\d+)"
NOT_DONE = re.compile(rf"no ({NAME}) because (.+)")
UNGUIDED = re.compile(rf"no guidance from {STEP} on")
DONE = re.compile(rf"({NAME})(?: [\d.]+)?(?: until (?:{STEP}|(\d+)% of the noise))?")
STRENGTH = re.compile(rf"({SplitGuidance.name}|{Anchor.name}) ([\d.]+)")


def parts_of(text: str) -> dict[str, Steps | Span | str]:
    """The parts that a text tells of, by name: when they work (`WHOLE`, where it names no end), or why they do not.

    Raises:
        ValueError: if it tells of anything else, or more of a part than that and its strength.
    """
    told = [_part(one) for one in re.split(rf", (?=(?:no )?(?:{NAME})\b|no guidance from )", text)]
    if len(dict(told)) < len(told):
        raise ValueError(f"tells of a part twice: {text!r}")
    return dict(told)


def strengths_of(text: str) -> dict[str, float]:
    """How strongly the parts that a text tells of work on guidance, by name."""
    return {name: float(strength) for name, strength in STRENGTH.findall(text)}


def _part(text: str) -> tuple[str, Steps | Span | str]:
    if found := NOT_DONE.fullmatch(text):
        return found[1], found[2]
    if found := UNGUIDED.fullmatch(text):
        return GuidanceInterval.name, (int(found[1]), int(found[2]), int(found[2]))
    if not (found := DONE.fullmatch(text)):
        raise ValueError(f"not read: {text!r}")
    name, last, steps, percents = found.groups()
    if last:
        return name, (1, int(last), int(steps))
    return name, Span(0, int(percents) / 100) if percents else WHOLE
