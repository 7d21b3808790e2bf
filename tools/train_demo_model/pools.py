"""Latents to learn from: drawn and encoded anew all the time, as a picture that comes again is learnt by heart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from .common import Run
from .data import Glyph, compose, cut, to_tensor
from .model import FACTOR, Autoencoder

KEPT = 400
"""Pictures that a pool holds at most; a new one takes the place of one drawn at random."""

FRESH_SHARE = 0.4
"""Of what is drawn from a full pool; the encoder costs a third of a UNet's step for the same picture."""

FIRST = 3
"""Times a draw that a pool begins with."""

PART_SHARE = 0.9
"""Of the pictures larger than native ones; the others show the whole object."""

NEAREST = 2.5
"""A part is a cut from a picture up to this many times as large ..."""

LARGEST_PICTURE = 768
"""... of at most this many pixels a side, as the drawings are rendered once for that."""

USUAL_LOSS = 0.2
NEWEST_SHARE = 0.05  # of what an emoji's pictures have cost lately
LEAST_RATIO, MOST_RATIO = 0.4, 3.0  # of an emoji's losses to all emojis'
EMPHASIS = 1.5


class Shares:
    """How often each emoji is drawn: the more often the larger its losses have been lately.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._losses = np.full(count, USUAL_LOSS)

    def note(self, labels: torch.Tensor, losses: torch.Tensor) -> None:
        """What pictures of these emoji [B] cost [B]."""
        for label, loss in zip(labels.tolist(), losses.tolist()):
            self._losses[label] += NEWEST_SHARE * (loss - self._losses[label])

    @property
    def values(self) -> np.ndarray:
        """One for each emoji; they add up to one."""
        ratios = np.clip(self._losses / self._losses.mean(), LEAST_RATIO, MOST_RATIO) ** EMPHASIS
        return ratios / ratios.sum()


class Latents(NamedTuple):
    """Scaled latents `[B, 4, cells, cells]` of pictures, and the numbers of the emoji on them `[B]`."""

    values: torch.Tensor
    labels: torch.Tensor


class Pool:
    """Pictures of one size: whole ones at the native size, whole ones and parts at larger sizes.

    Args:
        cells: Latent cells a side.
        parts: Whether some pictures show a part of the object.
        scale_factor: What latents are multiplied by.
        shares: How often each emoji is drawn.
    """

    def __init__(
        self,
        run: Run,
        autoencoder: Autoencoder,
        glyphs: list[Glyph],
        cells: int,
        parts: bool,
        scale_factor: float,
        shares: Shares,
    ) -> None:
        self._run, self._autoencoder, self._glyphs, self._shares = run, autoencoder, glyphs, shares
        self._side, self._parts, self._scale_factor = cells * FACTOR, parts, scale_factor
        self._values: list[torch.Tensor] = []
        self._labels: list[int] = []

    def draw(self, count: int, rng: np.random.Generator) -> Latents:
        """`count` pictures, some of them new, the others from those that the pool holds."""
        fresh = round(FRESH_SHARE * count) or 1
        while len(self._values) < FIRST * count:
            self._add(count, rng)
        newest = self._add(fresh, rng)
        others = rng.choice(len(self._values), count - fresh, replace=False).tolist()
        places = [*newest, *others]
        values = torch.stack([self._values[place] for place in places]).float()
        return Latents(values, torch.tensor([self._labels[place] for place in places], device=self._run.device))

    @torch.no_grad()
    def _add(self, count: int, rng: np.random.Generator) -> list[int]:
        """Draws and encodes `count` pictures; returns their places."""
        labels = rng.choice(len(self._glyphs), size=count, p=self._shares.values).tolist()
        pictures = to_tensor([self._picture(self._glyphs[label], rng) for label in labels]).to(self._run.device)
        with self._run.autocast():
            means = self._autoencoder.encode(pictures)[0] * self._scale_factor
        places: list[int] = []
        for label, value in zip(labels, means.unbind()):
            if len(self._values) < KEPT:
                places.append(len(self._values))
                self._values.append(value)
                self._labels.append(label)
            else:
                places.append(int(rng.integers(KEPT)))
                self._values[places[-1]], self._labels[places[-1]] = value, label
        return places

    def _picture(self, glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
        if not self._parts or rng.random() >= PART_SHARE:
            return compose(glyph, rng, self._side)[0]
        nearest = min(NEAREST, LARGEST_PICTURE / self._side)
        return cut(glyph, rng, self._side, float(np.exp(rng.uniform(0, np.log(nearest)))))


@torch.no_grad()
def measure_scale_factor(run: Run, autoencoder: Autoencoder, glyphs: list[Glyph]) -> float:
    """What gives the latents of whole native pictures, one of each emoji, unit variance."""
    rng = np.random.default_rng(run.seed)
    pictures = [to_tensor([compose(glyph, rng)[0]]).to(run.device) for glyph in glyphs]
    return float(1 / torch.cat([autoencoder.encode(picture)[0] for picture in pictures]).std())
