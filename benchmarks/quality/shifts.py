"""Other ways to move MSW-MSA's windows than the core's, to compare them.

The core asks `windows.cycle_index(step, site)` for a number and `windows.window_shift(size, number)` for the shift
it stands for; both are replaced while a context is open.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from unittest.mock import patch

from hidiffusion_ext.core.parts import windows
from hidiffusion_ext.core.parts.windows import SHIFTS, even_size
from hidiffusion_ext.core.sizes import Size

SITES = 5
"""Windowed self-attentions of an SD1 UNet."""

PLASTIC = 1.32471795724474602596
"""The root of x^3 = x + 1."""

Policy = tuple[Callable[[int, int], int], Callable[[Size, int], Size]]


@contextmanager
def shifts_by(policy: Policy) -> Generator[None, None, None]:
    """Moves windows by `policy` wherever a plan asks for the cycle."""
    number, shift = policy
    with patch.object(windows, "cycle_index", number), patch.object(windows, "window_shift", shift):
        yield


def _independent_number(step: int, site: int) -> int:
    """One of 16: vertical and horizontal quarter go round at different paces, so all pairs occur, each equally."""
    vertical = (step + site) % SHIFTS
    horizontal = (step // SHIFTS + 2 * site + step) % SHIFTS
    return SHIFTS * vertical + horizontal


def _independent_shift(size: Size, number: int) -> Size:
    height, width = even_size(size)
    return height // 2 // SHIFTS * (number // SHIFTS), width // 2 // SHIFTS * (number % SHIFTS)


def _running_number(step: int, site: int) -> int:
    return step * SITES + site


def _low_discrepancy_shift(size: Size, number: int) -> Size:
    """Any whole cell, spread evenly: the fractional parts of n/p and n/p^2, p the plastic number (Roberts' R2)."""
    height, width = even_size(size)
    return int(number / PLASTIC % 1 * (height // 2)), int(number / PLASTIC**2 % 1 * (width // 2))


INDEPENDENT: Policy = _independent_number, _independent_shift
LOW_DISCREPANCY: Policy = _running_number, _low_discrepancy_shift
