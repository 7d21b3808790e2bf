"""From the pictures of a cell to its row of figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from hidiffusion_ext.core.sizes import Size

from .background import extended, find_background
from .cells import NATIVE_ROW, REFERENCE_ROW, TRUE_DECODED_ROW, TRUE_ROW, Cell, Store, prompt_number
from .classifier import Classifier, look
from .detail import DetailNet, look_closely
from .distances import frechet_distance, frechet_of_crops, kernel_distance
from .objects import count_objects
from .rendering import rendered
from .seams import Steps, measure_steps

FEWEST = 20
"""Cells with fewer pictures get no row."""

PLACE_SEED = 3
TRUE_SEED = 900_000
"""The seed of the first true rendering that pictures are compared with."""


@dataclass(frozen=True)
class Row:
    """The figures of one cell.

    Attributes:
        method, height, width: The cell; the method "native" is the floor of every distance.
        n: How many pictures; the distances are to as many native pictures of the same prompts, other seeds.
        objects_mean: Objects per picture.
        extra_object_rate: Share of pictures with more objects than pictures of the caption have.
        fid_b, kid_b: Distances to the native pictures in the classifier's features.
        detail, detail_error: Distance (FID) of crops in full size to crops of as many true renderings of that size, in
            the features of the network that looks at detail, and its standard error; compare rows of equal n and size.
        kid_detail: The same as KID.
        accuracy: Share of pictures that the classifier gives the prompt's caption.
        work: Operations of the whole job for one picture, over those of a native picture.
        precision: Of the matrix products, "bf16" or "fp32".
        seam: Colour steps at window borders over steps elsewhere, on flat background; None without such background.
        unevenness: Mean colour step between neighbouring latent cells of flat background, in 1/255: what window borders
            do to the background wherever they fall.
        false_texture: Share of the crops whose texture the network that looks at detail takes for false.
        fidelity: PSNR in dB to the same true renderings as the autoencoder gives them back, over all pixels; None for
            pictures that a model drew from noise.
        moved: Mean distance of each crop's features to those of the same crop there, likewise.
    """

    method: str
    height: int
    width: int
    n: int
    objects_mean: float
    extra_object_rate: float
    fid_b: float
    kid_b: float
    detail: float
    detail_error: float
    kid_detail: float
    accuracy: float
    work: float
    precision: str
    seam: float | None
    unevenness: float | None
    false_texture: float
    fidelity: float | None = None
    moved: float | None = None


class Measures:
    """Measures cells of one store.

    Args:
        store: The pictures.
        classifier: Trained on the captions, in their order.
        detail_net: Trained on crops of them.
        captions: What the prompts are.
        native_counts: Objects in real pictures, per caption.
        precision: What the pictures were made in.
    """

    def __init__(
        self,
        store: Store,
        classifier: Classifier,
        detail_net: DetailNet,
        captions: Sequence[str],
        native_counts: dict[str, int],
        precision: str,
    ) -> None:
        self.store, self.classifier, self.detail_net = store, classifier, detail_net
        self.captions, self.native_counts, self.precision = captions, native_counts, precision
        reference = Cell(REFERENCE_ROW, 128, 128)
        self._native = [store.read(reference, index) for index in range(store.complete(reference))]
        self._native_operations = store.operations(reference)
        self._references: dict[float, np.ndarray] = {}
        self._true: dict[Size, np.ndarray] = {}

    def reference(self, aspect: float) -> np.ndarray:
        """The native reference's features [n, FEATURES], its pictures extended to that height over width.

        The classifier sees the short side of a long picture smaller; so does it then in the reference.
        """
        if aspect not in self._references:
            places = np.random.default_rng(PLACE_SEED).random(len(self._native))
            pictures = [extended(picture, aspect, place) for picture, place in zip(self._native, places)]
            self._references[aspect] = look(self.classifier, pictures)[0]
        return self._references[aspect]

    def true_detail(self, size: Size, count: int) -> np.ndarray:
        """The features [n, crops, FEATURES] of the crops of at least `count` true renderings of (height, width)."""
        if size not in self._true or len(self._true[size]) < count:
            captions = [self.captions[prompt_number(index, len(self.captions))] for index in range(count)]
            pictures = [rendered(caption, TRUE_SEED + index, size) for index, caption in enumerate(captions)]
            self._true[size] = look_closely(self.detail_net, pictures)[0]
        return self._true[size]

    def row(self, cell: Cell, most: int) -> Row | None:
        """The row of a cell, of at most `most` pictures.

        None if there are too few of it or of the reference, or nobody has counted what one costs.
        """
        n = min(most, self.store.complete(cell), len(self._native))
        operations = self.store.operations(cell)
        if n < FEWEST or operations is None or self._native_operations is None:
            return None
        pictures = [self.store.read(cell, index) for index in range(n)]
        prompts = [prompt_number(index, len(self.captions)) for index in range(n)]
        counts: list[int] = []
        steps = Steps()
        for picture in tqdm(pictures, desc=f"measuring {cell.name}", leave=False, mininterval=2):
            background = find_background(picture)
            counts.append(count_objects(background))
            steps += measure_steps(picture, background)
        features, found = look(self.classifier, pictures)
        reference = self.reference(cell.height / cell.width)[:n]
        close, false = look_closely(self.detail_net, pictures)
        true = self.true_detail((cell.height, cell.width), n)[:n]
        detail = frechet_of_crops(close, true)
        expected = [self.native_counts[self.captions[prompt]] for prompt in prompts]
        return Row(
            cell.method,
            cell.height,
            cell.width,
            n,
            objects_mean=round(float(np.mean(counts)), 4),
            extra_object_rate=round(float(np.mean(np.array(counts) > expected)), 4),
            fid_b=round(frechet_distance(features, reference), 4),
            kid_b=round(kernel_distance(features, reference).value, 5),
            detail=round(detail.value, 4),
            detail_error=round(detail.error, 4),
            kid_detail=round(kernel_distance(close, true).value, 5),
            accuracy=round(float(np.mean(found == prompts)), 4),
            work=round(operations / self._native_operations, 3),
            precision=self.precision,
            seam=None if math.isnan(steps.ratio) else round(steps.ratio, 4),
            unevenness=None if math.isnan(steps.mean) else round(255 * steps.mean, 3),
            false_texture=round(float(false.mean()), 4),
            **self._kept_of_the_truth(cell, pictures, close),
        )

    def _kept_of_the_truth(self, cell: Cell, pictures: list[np.ndarray], close: np.ndarray) -> dict[str, float]:
        """`fidelity` and `moved` of true renderings that were made again, beside the autoencoder's of them."""
        decoded = Cell(TRUE_DECODED_ROW, cell.height, cell.width)
        if not cell.method.startswith(TRUE_ROW) or cell == decoded or self.store.complete(decoded) < len(pictures):
            return {}
        kept = [self.store.read(decoded, index) for index in range(len(pictures))]
        error = np.mean([np.square(a.astype(float) - b).mean() for a, b in zip(pictures, kept)])
        moved = np.linalg.norm(close - look_closely(self.detail_net, kept)[0], axis=-1)
        return {"fidelity": round(float(10 * np.log10(255**2 / error)), 3), "moved": round(float(moved.mean()), 4)}

    def rows(self, cells: Sequence[Cell], most: int) -> list[Row]:
        """The rows of all cells that have enough pictures, the reference itself left out."""
        measured = [self.row(cell, most) for cell in cells if cell.method != REFERENCE_ROW]
        return [row for row in measured if row is not None]


def floor_of(rows: Sequence[Row]) -> Row | None:
    """The row of native pictures against other native pictures."""
    return next((row for row in rows if row.method == NATIVE_ROW), None)
