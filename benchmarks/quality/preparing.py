"""What is made once from the renderer: the classifier, the native counts and the proof that the counter counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
from tqdm import tqdm

from tools.train_demo_model.data import Glyph
from tools.train_demo_model.data import compose as render

from . import spoiling
from .background import find_background
from .classifier import Classifier, load_classifier, look
from .compositions import GAP, SHARES, compose, worn
from .detail import DetailNet, load_detail_net, look_closely
from .detail_training import textured, train_detail_net
from .distances import frechet_distance, frechet_of_crops, kernel_distance
from .objects import count_objects
from .training import train_classifier

COUNTS_FILE = Path(__file__).with_name("native_counts.json")
NATIVE_PICTURES = 9
PER_CASE = 300
CALIBRATION = 200
SIDES = (128, 256, 512)
SEED = 11


def prepare(glyphs: list[Glyph], results: Path) -> None:
    """Writes the classifier, the native counts, and how good the measuring itself is (`metrics.json`)."""
    counts = native_counts(glyphs)
    COUNTS_FILE.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    clean, rough = train_classifier(glyphs)
    answers = train_detail_net(glyphs)
    report: dict[str, Any] = {
        "classifier": {
            "parameters": sum(parameter.numel() for parameter in Classifier(len(glyphs)).parameters()),
            "held_out_accuracy": round(clean, 4),
            "held_out_accuracy_worn": round(rough, 4),
        },
        "detail": {
            "parameters": sum(parameter.numel() for parameter in DetailNet(len(glyphs)).parameters()),
            "held_out": answers,
            "calibration": detail_calibration(glyphs, CALIBRATION),
        },
        "counter": confusion(glyphs, PER_CASE),
        "calibration": calibration(glyphs, CALIBRATION),
        "captions_with_several_parts": [caption for caption, count in counts.items() if count > 1],
    }
    results.mkdir(parents=True, exist_ok=True)
    (results / "metrics.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def load_native_counts() -> dict[str, int]:
    """Caption -> objects that the counter finds in real pictures of it."""
    return json.loads(COUNTS_FILE.read_text(encoding="utf-8"))


def native_counts(glyphs: list[Glyph]) -> dict[str, int]:
    """Caption -> median count over real, slightly worn pictures, the lower one of two."""
    rng = np.random.default_rng(SEED)
    return {
        glyph.caption: median_low(
            count_objects(find_background(worn(render(glyph, rng)[0], rng))) for _ in range(NATIVE_PICTURES)
        )
        for glyph in tqdm(glyphs, desc="native counts")
    }


def confusion(glyphs: list[Glyph], per_case: int) -> list[dict[str, Any]]:
    """`count_case` for 1, 2 and 4 objects at each of `SIDES`, and for objects that may touch."""
    cases = [(objects, side, GAP) for side in SIDES for objects in SHARES]
    cases += [(objects, 256, 0.0) for objects in SHARES if objects > 1]
    return [count_case(glyphs, objects, side, per_case, gap) for objects, side, gap in tqdm(cases, desc="counter")]


def calibration(glyphs: list[Glyph], pictures: int) -> list[dict[str, Any]]:
    """What the distances and the accuracy are for real pictures, right and wrong ones, of the same prompts."""
    numbers = np.arange(pictures) % len(glyphs)
    classifier = load_classifier()

    def features(objects: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((SEED, objects, side, pictures))
        drawn = [[glyphs[number]] * objects for number in numbers]
        return look(classifier, [worn(compose(some, (side, side), SHARES[objects], rng), rng) for some in drawn])

    reference, _ = features(1, 128)
    rows: list[dict[str, Any]] = []
    for objects in SHARES:
        found, captions = features(objects, 256)
        rows.append(
            {
                "objects": objects,
                "n": pictures,
                "fid_b": round(frechet_distance(found, reference), 4),
                "kid_b": round(kernel_distance(found, reference).value, 5),
                "accuracy": round(float(np.mean(captions == numbers)), 4),
            }
        )
    return rows


def detail_calibration(glyphs: list[Glyph], pictures: int) -> list[dict[str, Any]]:
    """What the distance in detail is for true renderings at twice the native side, and for spoiled ones."""
    net = load_detail_net()
    chosen = [glyphs[index % len(glyphs)] for index in range(pictures)]

    def features(spoil: Callable[[Glyph, np.random.Generator], np.ndarray], seed: int) -> np.ndarray:
        rng = np.random.default_rng((SEED, seed))
        return look_closely(net, [spoil(glyph, rng) for glyph in chosen])[0]

    def true(glyph: Glyph, rng: np.random.Generator) -> np.ndarray:
        return render(glyph, rng, 256)[0]

    reference = features(true, 0)
    rows: list[dict[str, Any]] = []
    for name, spoil in {
        "true": true,
        "blurred by 0.6 pixels": lambda glyph, rng: spoiling.blurred(true(glyph, rng), 0.6),
        "enlarged from 128x128": lambda glyph, rng: spoiling.enlarged(true(glyph, rng), 2),
        "noise of 12/255": lambda glyph, rng: spoiling.noisy(true(glyph, rng), 12, rng),
        "texture of half the size": lambda glyph, rng: true(textured(glyph, 2), rng),
    }.items():
        found = features(spoil, 1)
        distance = frechet_of_crops(found, reference)
        rows.append(
            {
                "pictures": name,
                "n": pictures,
                "detail": round(distance.value, 4),
                "detail_error": round(distance.error, 4),
                "kid_detail": round(kernel_distance(found, reference).value, 5),
            }
        )
    return rows


def count_case(glyphs: list[Glyph], objects: int, side: int, pictures: int, gap: float = GAP) -> dict[str, Any]:
    """Counts in pictures of `side` pixels with that many real objects, half of them all of the same emoji.

    The boxes of the objects are at least `gap` apart, as a share of the side.
    """
    rng = np.random.default_rng((SEED, objects, side))
    found: Counter[int] = Counter()
    for index in range(pictures):
        numbers = rng.integers(0, len(glyphs), objects if index % 2 else 1)
        chosen = [glyphs[number] for number in np.resize(numbers, objects)]
        picture = worn(compose(chosen, (side, side), SHARES[objects], rng, gap), rng)
        found[count_objects(find_background(picture))] += 1
    return {
        "objects": objects,
        "side": side,
        "gap": gap,
        "n": pictures,
        "counted": {str(count): found[count] for count in sorted(found)},
        "error_rate": round(1 - found[objects] / pictures, 4),
    }
