"""The measure of detail tells true pictures from spoiled ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.quality.detail import CROP, FEATURES, crops, load_detail_net, look_closely
from benchmarks.quality.preparing import detail_calibration, load_native_counts
from tools.train_demo_model.data import load_glyphs

PICTURES = 60


@pytest.mark.parametrize(("size", "count"), [((128, 128), 1), ((256, 256), 4), ((192, 384), 6), ((320, 128), 3)])
def test_crops_cover_a_picture(size: tuple[int, int], count: int) -> None:
    places = np.arange(size[0] * size[1]).reshape(*size, 1)
    cut = crops(places)
    assert cut.shape == (count, CROP, CROP, 1)
    assert set(cut.ravel().tolist()) == set(range(size[0] * size[1]))


def test_each_picture_gives_the_features_of_its_own_crops() -> None:
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3)).astype(np.uint8))
    net = load_detail_net()
    features, false = look_closely(net, pictures)
    assert features.shape == (3, 4, FEATURES)
    assert false.shape == (3, 4)
    assert np.allclose(features[1], look_closely(net, pictures[1:2])[0][0], atol=1e-5)
    assert np.allclose(features[1, 3], look_closely(net, [pictures[1][128:, 128:]])[0][0, 0], atol=1e-5)


def test_the_kept_network_knows_the_captions() -> None:
    assert load_detail_net().captions.out_features == len(load_native_counts())


def test_the_less_true_a_picture_the_larger_its_distance() -> None:
    rows = detail_calibration(load_glyphs(PICTURES), PICTURES)
    for truer, next_one in itertools.pairwise(rows):
        assert next_one["detail"] - truer["detail"] > max(truer["detail_error"], next_one["detail_error"])
        assert next_one["kid_detail"] > truer["kid_detail"]
