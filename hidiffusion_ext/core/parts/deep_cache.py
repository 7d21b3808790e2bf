"""DeepCache: steps that compute the finest level alone, over what the deeper levels gave before (arXiv 2312.00858).

What the deeper levels give changes slowly once a picture's layout is settled. In a call that goes over it, every layer
below the finest level is left out; the last of them, which leads back to the finest level, answers with what it gave
when it was last called. A hook cannot leave a layer out, so for the time of a pass these layers have a forward of ours.

Rows are kept one by one: an answer belongs to a picture and a prompt, in whichever calls a host puts its rows together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import nn

from .. import patching
from ..arithmetic import table
from ..schedule import NoiseLevels, Schedule, Span
from ..sizes import FeatureSizes
from ..unet_map import Block
from .part import Inside, Need, Part

if TYPE_CHECKING:
    from ..plan import Plan
    from ..run import Run
    from ..words import Telling

SETTLED_SIGMA = 1.25
"""The noise's standard deviation over the signal's below which deeper levels are kept: a restart begins at 1.08."""

KEPT_FOR = 0.15
"""How much the noise's share of the variance may fall until the deeper levels are computed anew. Of six steps from a
sigma of 1.08, spaced as Karras has them, that goes over two."""

IN_LAYERS = frozenset({Need.FEATURES, Need.RESIZING, Need.CONVOLUTIONS, Need.TOKENS})
"""What the parts need that change what layers compute."""

BITS = 24
"""Of an identity: as many as single precision holds."""

SPREAD = 0x9E3779B97F4A7C15 - 2**64
"""The golden ratio's digits: what neighbouring numbers are multiplied with to be far from each other (Knuth)."""


def identities(x: torch.Tensor, shown: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """A number for each row of a call [B], the same if and only if (but for chance) it is shown the same.

    Made of the bits, in whole numbers: so it depends neither on the other rows nor on the order of a sum.

    Args:
        x: What the UNet is called with, [B, C, H, W].
        shown: What it is shown beside it: text [B, T, C], and SDXL's numbers [B, C].

    Returns:
        None if something that is shown has not one entry for each row.
    """
    total = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for values in shown:
        if values.shape[:1] != x.shape[:1]:
            return None
        bits = values.detach().flatten(1).contiguous().view(_WHOLE[values.element_size()]).to(torch.int64)
        total = total * SPREAD + (bits * _multipliers(bits.shape[1], x.device)).sum(1)
    return (total >> (64 - BITS)).float()


_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Whole numbers of so many bytes."""


@table
def _multipliers(count: int, device: torch.device) -> torch.Tensor:
    """An odd number for each place [count]."""
    return (torch.arange(1, count + 1, device=device) * SPREAD) | 1


class Row(NamedTuple):
    """What the deeper levels gave for one row, [C, H, W], and its share of noise then."""

    features: torch.Tensor
    noise: float


Key = tuple[float, int]
"""A row: what it is shown, and of those that are shown the same, in the calls at one noise, the how manieth it is."""


class Kept:
    """What the deeper levels gave, over a pass.

    Args:
        levels: The model's noise schedule.
    """

    def __init__(self, levels: NoiseLevels) -> None:
        self._levels = levels
        self._rows: dict[Key, Row] = {}
        self._seen: Counter[float] = Counter()
        self._used: set[Key] = set()
        self._timesteps: tuple[float, ...] = ()
        self._state: object = None
        self._keys: list[Key] = []
        self._noise: list[float] = []

    def begin(self, identities: Sequence[float], timesteps: Sequence[float]) -> None:
        """A call with these rows begins."""
        if self._timesteps != tuple(sorted({*timesteps})):
            self._rows = {key: row for key, row in self._rows.items() if key in self._used}
            self._seen, self._used, self._timesteps = Counter(), set(), tuple(sorted({*timesteps}))
        self._noise = [self._levels.noise(timestep) for timestep in timesteps]
        self._keys = []
        for identity in identities:
            self._keys.append((identity, self._seen[identity]))
            self._seen[identity] += 1
        self._used |= {*self._keys}

    def end(self) -> None:
        """The call is over, or is none that anything is kept of."""
        self._keys = []

    def holds(self, state: object) -> bool:
        """Whether the current call can go over what is kept, if the model still is in the same state."""
        if state != self._state:
            self._rows, self._state = {}, state
        return bool(self._keys) and all(map(self._lasts, self._keys, self._noise))

    def rows(self) -> torch.Tensor:
        """What is kept for the current call, [B, C, H, W]."""
        return torch.stack([self._rows[key].features for key in self._keys])

    def taken(self, computed: torch.Tensor) -> torch.Tensor:
        """What was computed, with what is kept in the place of rows that did not need it; the others are kept."""
        lasting = list(map(self._lasts, self._keys, self._noise))
        for key, noise, features, lasts in zip(self._keys, self._noise, computed, lasting):
            if not lasts:
                self._rows[key] = Row(features, noise)
        return self.rows() if any(lasting) else computed

    def _lasts(self, key: Key, noise: float) -> bool:
        row = self._rows.get(key)
        return row is not None and lasts(row.noise, noise)


def lasts(then: float, now: float) -> bool:
    """Whether what was computed at one share of noise can still be gone over at another."""
    return 0 <= then - now < KEPT_FOR


def keeping(schedule: Schedule, span: Span) -> range:
    """The steps in which deeper levels may be kept: all in a span but the last of the pass, as the finest level alone
    leaves a grain in plain areas, which no further step would take away.
    """
    inside = schedule.steps_inside(span)
    return range(inside.start, min(inside.stop, schedule.steps - 1))


def over_kept(schedule: Schedule, span: Span) -> list[int]:
    """The steps that go over what is kept."""
    found, then = list[int](), -math.inf
    for step in keeping(schedule, span):
        now = schedule.levels.noise(schedule.timesteps[step])
        if lasts(then, now):
            found.append(step)
        else:
            then = now
    return found


@dataclass(frozen=True)
class DeepCache(Part):
    """Steps over what the deeper levels gave before.

    Attributes:
        blocks: Those below the finest level, in the order they run.
        span: When.
    """

    blocks: tuple[Block, ...]
    span: Span

    name: ClassVar[str] = "DeepCache"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LAYERS})
    not_met: ClassVar[str] = "no call came with the same prompt as the one before"

    @property
    def spans(self) -> tuple[Span, ...]:
        return (self.span,)

    def due(self, schedule: Schedule) -> bool:
        return bool(over_kept(schedule, self.span))

    def needs_memory(self, inside: Inside) -> bool:
        return inside(self.span)

    def factors(self, schedule: Schedule, step: int, sizes: FeatureSizes, *, base: bool) -> Mapping[str, float]:
        if sizes.changed or step not in over_kept(schedule, self.span):
            return {}
        transformers = [name.rpartition(".")[0] for block in self.blocks for name in block.attentions]
        sites = [name for block in self.blocks for name in (*block.convs, *block.attentions, block.down, block.up)]
        return dict.fromkeys([*transformers, *(name for name in sites if name)], 0.0)

    def put_in_place(self, stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
        kept, found = Kept(run.schedule.levels), run.reading(stack, identities)
        layers = [unet.get_submodule(name) for block in self.blocks for name in block.layers]
        finest = [unet.get_submodule(name) for name in plan.unet.inputs[1].convs]
        is_left_out = False

        def begin(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            nonlocal is_left_out
            is_left_out = False
            sizes, steps = run.sizes, keeping(run.schedule, self.span)
            if sizes and not sizes.changed and run.step in steps and found.values is not None:
                kept.begin(found.values, run.timesteps)
            else:
                kept.end()
            return None

        def first(forward: Callable[..., torch.Tensor], x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            nonlocal is_left_out
            is_left_out = kept.holds(_state(finest, run))
            return x[:, :0] if is_left_out else forward(x, *args, **kwargs)

        def between(forward: Callable[..., torch.Tensor], x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            return x if is_left_out else forward(x, *args, **kwargs)

        def last(forward: Callable[..., torch.Tensor], x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if not is_left_out:
                return kept.taken(forward(x, *args, **kwargs))
            run.did(self.name)
            return kept.rows()

        patching.before_forward(stack, unet, begin)
        for layer, wrapper in zip(layers, [first, *[between] * (len(layers) - 2), last], strict=True):
            patching.around_forward(stack, layer, wrapper)

    def told(self, telling: Telling) -> str | None:
        if telling.schedule and not self.due(telling.schedule):
            return None
        return self.name if telling.done is None or self.name in telling.done.least else ""


def _state(finest: Sequence[nn.Module], run: Run) -> object:
    """What the deeper levels depend on beside what they are given: what is at work in them, and the weights that LoRAs
    have given the model, which a WebUI notes on each layer when it is called.
    """
    at_work = [part.name for part in run.at_work if part.needs & IN_LAYERS and any(map(run.inside, part.spans))]
    return at_work, [getattr(layer, "network_current_names", None) for layer in finest]
