"""Whether the borders of MSW-MSA's windows can be seen: steps of colour there, against steps elsewhere.

Windows cut the feature map between two latent cells, so only the lines between cells are looked at: those where a
window's border is put at some step, and the others. Both have the same grid of the decoder under them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from hidiffusion_ext.core.parts.windows import SHIFTS, even_size, window_shift
from hidiffusion_ext.core.sizes import CELL

from .background import Background, plane_terms
from .objects import object_mask

STRIP = 4
"""Pixels on each side of a line that are compared."""

CLEARANCE = 0.03
"""What counts as flat keeps this share of the side away from objects."""


@dataclass(frozen=True)
class Steps:
    """Sums over the flat parts of lines; add them up over pictures.

    Attributes:
        at_borders, elsewhere: Sum of the colour steps (RGB distance, 0..1), and number of steps.
    """

    at_borders: tuple[float, int] = (0.0, 0)
    elsewhere: tuple[float, int] = (0.0, 0)

    def __add__(self, other: Steps) -> Steps:
        def add(a: tuple[float, int], b: tuple[float, int]) -> tuple[float, int]:
            return a[0] + b[0], a[1] + b[1]

        return Steps(add(self.at_borders, other.at_borders), add(self.elsewhere, other.elsewhere))

    @property
    def ratio(self) -> float:
        """Mean step at borders over mean step elsewhere: 1 when no border can be told; nan without flat parts."""
        (at, n), (off, m) = self.at_borders, self.elsewhere
        return (at / n) / (off / m) if n and m and off else float("nan")

    @property
    def mean(self) -> float:
        """Mean step over all lines, RGB distance in 0..1; nan without flat parts."""
        (at, n), (off, m) = self.at_borders, self.elsewhere
        return (at + off) / (n + m) if n + m else float("nan")


def border_lines(side: int, other: int) -> set[int]:
    """Latent lines along one axis that some shift puts a window's border on.

    Args:
        side: Latent cells along this axis.
        other: Latent cells along the other axis.
    """
    even = even_size((side, other))[0]
    starts = [window_shift((side, other), index)[0] for index in range(SHIFTS)]
    return {line for start in starts for line in (start, (start + even // 2) % even) if 0 < line < side}


def measure_steps(picture: np.ndarray, background: Background) -> Steps:
    """The steps of a uint8 picture `[H, W, 3]` across the lines between latent cells, on its flat background."""
    height, width, _ = picture.shape
    busy = object_mask(background)
    busy = np.asarray(ndimage.binary_dilation(busy, iterations=max(1, round(CLEARANCE * busy.size**0.5))), dtype=bool)
    rows = np.arange(height) * busy.shape[0] // height
    columns = np.arange(width) * busy.shape[1] // width
    flat = ~busy[rows[:, None], columns[None, :]]
    residual = picture.astype(np.float32) / 255
    if flat.sum() >= 3:
        terms = plane_terms(height, width)
        own = terms[flat.ravel()]
        fitted = np.linalg.lstsq(own, residual[flat], rcond=None)[0]
        residual = residual - (terms @ fitted).reshape(residual.shape)
    down = _along_rows(residual, flat, border_lines(height // CELL, width // CELL))
    across = _along_rows(residual.swapaxes(0, 1), flat.T, border_lines(width // CELL, height // CELL))
    return down + across


def _along_rows(residual: np.ndarray, flat: np.ndarray, borders: set[int]) -> Steps:
    """Steps across horizontal lines of `[H, W, 3]` without its background plane.

    A step is between the mean colours of the `STRIP` x `CELL` pixels above and below a cell's edge, where all are flat.
    """
    total = Steps()
    width = residual.shape[1] // CELL * CELL
    for line in range(min(borders), max(borders) + 1):  # further out the decoder's padding is seen
        y = line * CELL
        usable = flat[y - STRIP : y + STRIP, :width].reshape(2 * STRIP, -1, CELL).all(axis=(0, 2))
        sides = residual[y - STRIP : y + STRIP, :width].reshape(2, STRIP, -1, CELL, 3).mean(axis=(1, 3))
        sizes = np.linalg.norm(sides[1] - sides[0], axis=1)[usable]
        found = float(sizes.sum()), sizes.size
        total += Steps(at_borders=found) if line in borders else Steps(elsewhere=found)
    return total
