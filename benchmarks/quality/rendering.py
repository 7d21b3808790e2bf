"""True pictures of the captions: what the model was trained to draw, at any size."""

from __future__ import annotations

import numpy as np

from hidiffusion_ext.core.sizes import Size
from tools.train_demo_model.data import OBJECT_SIDE, load_glyph
from tools.train_demo_model.data import compose as compose_square

from .compositions import compose


def rendered(caption: str, seed: int, size: Size) -> np.ndarray:
    """A true picture of (height, width) pixels, uint8 `[H, W, 3]`; as in training where it is square."""
    rng = np.random.default_rng(seed)
    glyph = load_glyph(caption)
    height, width = size
    return compose_square(glyph, rng, height)[0] if height == width else compose([glyph], size, OBJECT_SIDE, rng)
