"""What a pass costs: the multiplications in the UNet, counted from its map and the plan.

A convolution or linear layer multiplies each of its weights once per cell, so it grows with the area; self-attention
compares every cell with every other, so it grows with the square of the area. Left out, as they are a few per cent at
most: 1x1 convolutions, the text's part of cross-attention, the first and last layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .parts.part import Inside
from .plan import Plan
from .schedule import Schedule
from .sizes import FeatureSizes, Size
from .unet_map import Block

KERNEL = 3 * 3

TRANSFORMER = 18
"""Linear weights of one transformer block over its channels squared: 4 self-, 2 cross-attention, 12 feed-forward."""


@dataclass(frozen=True)
class Cost:
    """The multiplications of one pass.

    Attributes:
        direct: Of one step without any method.
        shares: Of each step as planned, as a share of `direct`.
    """

    direct: float
    shares: tuple[float, ...]


def speed_up(*costs: Cost, direct: float | None = None) -> float:
    """How many times fewer multiplications the passes of a job take together than without any method.

    Args:
        costs: One per pass.
        direct: What it takes without any method, if that is not the same passes.

    Returns:
        The factor; 1 where no step is made.
    """
    without = direct or sum(cost.direct * len(cost.shares) for cost in costs)
    with_it = sum(cost.direct * sum(cost.shares) for cost in costs)
    return without / with_it if with_it else 1.0


def direct(plan: Plan, schedule: Schedule) -> float:
    """The multiplications of a pass of the plan's size without any method."""
    return _multiplications(plan, plan.sizes(), {}) * schedule.steps


def count(plan: Plan, schedule: Schedule) -> Cost:
    """The cost of the plan's pass with that schedule and with guidance (two rows per picture)."""
    one = _multiplications(plan, plan.sizes(), {})

    def at(step: int, inside: Inside) -> float:
        sizes = plan.sizes(inside)

        def evaluation(*, base: bool) -> float:
            factors: dict[str, float] = {}
            for part in plan.parts:
                factors |= part.factors(schedule, step, sizes, base=base)
            return _multiplications(plan, sizes, factors)

        again = any(part.evaluates_again(plan, schedule, step) for part in plan.parts)
        rows = evaluation(base=False) / (2 if any(map(inside, plan.unguided_by)) else 1)
        return rows + (evaluation(base=True) / 2 if again else 0.0)

    return Cost(one, tuple(at(step, inside) / one for step, inside in enumerate(plan.phases(schedule))))


def _multiplications(plan: Plan, sizes: FeatureSizes, factors: Mapping[str, float]) -> float:
    """Of one evaluation of the UNet; `factors` says how many times its own a site takes, by name."""
    total = 0.0
    for block, incoming, size, size_after in _blocks(plan, sizes):
        cells = math.prod(size)
        convs = {name: cells * (block.channels if number else incoming) for number, name in enumerate(block.convs)}
        if block.down:
            convs[block.down] = cells * incoming
        if block.up:
            convs[block.up] = math.prod(size_after) * block.channels
        total += sum(KERNEL * block.channels * work * factors.get(name, 1.0) for name, work in convs.items())
        for name in block.attentions:
            transformer = name.rpartition(".")[0]
            total += cells * TRANSFORMER * block.channels**2 * factors.get(transformer, 1.0)
            total += 2 * cells**2 * block.channels * factors.get(name, 1.0)
    return total


def _blocks(plan: Plan, sizes: FeatureSizes) -> Iterator[tuple[Block, int, Size, Size]]:
    """The blocks in the order they run: each with its incoming channels, its size and that of the block after it."""
    unet = plan.unet
    channels = 0
    for block, size in zip(unet.inputs, sizes.inside):
        yield block, channels, size, size
        channels = block.channels
    yield unet.middle, channels, sizes.skips[-1], sizes.skips[-1]
    channels = unet.middle.channels
    for index, block in enumerate(unet.outputs):
        partner = unet.partner(index)
        yield block, channels + unet.inputs[partner].channels, sizes.skips[partner], sizes.skips[max(partner - 1, 0)]
        channels = block.channels
