"""Where the WebUI's schedulers put the timesteps of a whole pass of a Stable Diffusion model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import beta

from demo_model import Spacing
from tools.train_demo_model.diffusion import alphas_cumprod

RHO = 7
"""Karras et al. 2022 (arXiv 2206.00364), equation 5."""

BETA = 0.6
"""Both parameters of the distribution of "Beta" (Lee et al. 2024, arXiv 2407.12173) in the WebUIs."""

ALPHAS = alphas_cumprod().numpy()
LOGARITHMS = np.log(((1 - ALPHAS) / ALPHAS) ** 0.5)
"""Of sigma at each training timestep."""


def _spaced(place: Callable[[np.ndarray, float, float], np.ndarray]) -> Spacing:
    """A spacing from sigmas: `(places from 0 to 1, largest sigma, smallest sigma) -> sigmas`."""

    def spacing(steps: int, first: float) -> list[float]:
        largest, smallest = np.exp(np.interp(first, np.arange(1000), LOGARITHMS)), np.exp(LOGARITHMS[0])
        sigmas = place(np.linspace(0, 1, steps), largest, smallest)
        return np.interp(np.log(sigmas), LOGARITHMS, np.arange(1000)).tolist()

    return spacing


SPACINGS: dict[str, Spacing] = {
    "Karras": _spaced(lambda x, high, low: (high ** (1 / RHO) + x * (low ** (1 / RHO) - high ** (1 / RHO))) ** RHO),
    "Beta": _spaced(lambda x, high, low: low + beta.ppf(1 - x, BETA, BETA) * (high - low)),
}
