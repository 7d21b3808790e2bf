"""The guidance interval: where little noise is left, guidance is left out, and with it half of the rows.

Guidance helps where a picture's content is settled and does nothing for its last details (arXiv 2404.07724, which
guides SDXL down to a sigma of 0.28). There the unconditional rows need not be evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..schedule import Span
from .part import Need, Part

if TYPE_CHECKING:
    from ..words import Telling

LEAST_SIGMA = 0.28
"""The noise's standard deviation over the signal's below which nothing is guided (arXiv 2404.07724, SDXL)."""


@dataclass(frozen=True)
class GuidanceInterval(Part):
    """No guidance at the end of a pass. Who combines the rows asks the plan for it, and leaves them out.

    Attributes:
        span: When nothing is guided.
    """

    span: Span

    name: ClassVar[str] = "guidance interval"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.INTERVAL, Need.UNCONDITIONAL})
    not_met: ClassVar[str] = "guidance was not left out while it would be"

    @property
    def spans(self) -> tuple[Span, ...]:
        return (self.span,)

    def unguided(self) -> Span:
        return self.span

    def told(self, telling: Telling) -> str | None:
        if telling.schedule is None:
            return f"no guidance from {self.span.start:.0%} of the noise on"
        if not self.due(telling.schedule):
            return None
        begins = telling.begins(self, self.span)
        return f"no guidance from {begins}{telling.of} on" if begins else ""
