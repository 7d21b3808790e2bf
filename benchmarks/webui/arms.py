"""The ways to make a picture that are compared. A new one is one line in `ARMS`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "api.schema.json"
"""What the extension can be asked for; its defaults are those it ships with, not those of the WebUI's owner."""

HIRES_STRENGTH = 0.3
"""Denoising strength of second passes."""


@dataclass(frozen=True)
class Arm:
    """A way to make a picture.

    Attributes:
        name: What it is called on the command line and in the results.
        settings: The extension's settings that differ from its defaults; None: the extension is off.
        hires: Whether hires fix makes it, from the native size, or one pass from noise.
    """

    name: str
    settings: Mapping[str, Any] | None = None
    hires: bool = False

    @property
    def plain(self) -> str:
        """The name of the arm that is the same job with the extension off: what a plan's promise is about."""
        return "hires" if self.hires else "direct"

    def arguments(self, common: Mapping[str, Any]) -> dict[str, Any]:
        """Every setting of the extension by name, `common` ones to every arm included."""
        if self.settings is None:
            return {"enabled": False}
        return _defaults() | {"enabled": True} | dict(common) | dict(self.settings)


ARMS = {
    arm.name: arm
    for arm in (
        Arm("direct"),
        Arm("HiDiffusion", {"method": "HiDiffusion"}),
        Arm("ScaleCrafter", {"method": "ScaleCrafter"}),
        Arm("hires", hires=True),
        Arm("hires-guided", {"split_guidance": 1.5}, hires=True),
        Arm("native-first", {"method": "Native first"}),
        Arm("relay", {"method": "Relay"}),
    )
}
"""Every arm by name, in the order of the results."""


def _defaults() -> dict[str, Any]:
    definitions = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"]
    return {name: about["default"] for name, about in definitions.items() if "default" in about}
