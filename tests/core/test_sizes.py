"""Sizes with the aspect of others, and those inside a call of the UNet: plain numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hidiffusion_ext.core.sizes import Size, Sizing, feature_sizes, resized, stretched
from hidiffusion_ext.core.unet_map import Block, Family, UNetMap

sides = st.integers(20, 80)


@pytest.mark.parametrize(
    ("size", "area", "found"),
    [
        ((32, 32), 9, (3, 3)),
        ((48, 32), 54, (9, 6)),
        ((170, 8), 256, (80, 4)),  # no side of the shorter one's multiples has the area, a side of the longer one's has
        ((40, 40), 0.02, (1, 1)),
        ((36, 64), 4096, (48, 85)),
        # With an area of 0.8 to 1.25 of the one asked for the aspect decides, beyond that the area.
        ((50, 40), 16, (5, 4)),
        ((50, 40), 25, (5, 4)),
        ((48, 16), 33, (9, 3)),
        ((48, 16), 34, (10, 3)),
        ((48, 16), 22, (9, 3)),
        ((48, 16), 21, (8, 3)),
    ],
)
def test_odd_sides_are_candidates_and_a_size_on_its_side_is_the_size(size: Size, area: float, found: Size) -> None:
    assert resized(size, area, tolerance=0.005) == found
    assert resized((size[1], size[0]), area, tolerance=0.005) == (found[1], found[0])


@given(sides, sides, st.floats(400, 20_000), st.sampled_from([(1,), (8, 4, 2, 1)]))
def test_no_other_size_is_nearer(height: int, width: int, area: float, multiples: tuple[int, ...]) -> None:
    """Among those with about the area the aspect decides, to within twice the tolerance."""
    size = height, width
    found = resized(size, area, tolerance=0.02, multiples=multiples)
    multiple = next(each for each in multiples if found[0] % each == found[1] % each == 0)
    reach = range(-2 * multiple, 2 * multiple + 1, multiple)
    others = [(found[0] + down, found[1] + across) for down in reach for across in reach]
    near = [other for other in others if min(other) > 0 and 0.8 * area <= math.prod(other) <= 1.25 * area]
    assert found in near or not near
    assert all(stretched(found, size) <= stretched(other, size) + 0.04 for other in near)


@pytest.mark.parametrize(
    ("size", "area", "found"),
    [
        ((64, 64), 1024, (32, 32)),
        ((64, 96), 1024, (24, 36)),  # no multiples of 8 have both, multiples of 4 have
        ((66, 62), 1024, (34, 32)),
        ((67, 61), 1024, (34, 31)),  # only multiples of 1 have both
        ((64, 64), 16, (4, 4)),
        ((50, 28), 256, (20, 11)),  # the aspects of others are off by more than twice two per cent
        ((61, 89), 16, (3, 5)),  # none has both
    ],
)
def test_the_first_multiple_with_area_and_aspect_is_taken(size: Size, area: float, found: Size) -> None:
    assert resized(size, area, tolerance=0.02, multiples=(8, 4, 2, 1)) == found
    assert resized((size[1], size[0]), area, tolerance=0.02, multiples=(8, 4, 2, 1)) == (found[1], found[0])


def test_how_far_an_aspect_is_from_another() -> None:
    assert stretched((100, 102), (50, 50)) == stretched((50, 50), (102, 100)) == pytest.approx(math.log(1.02))
    assert stretched((3, 4), (48, 64)) == 0


def unet(*downs: int) -> UNetMap:
    """Six input blocks, of which those are downsamplers."""
    block = Block(0, (), None, None, (), ())
    down = Block(0, (), "conv", None, (), ())
    return UNetMap(Family.SD1, 4, 4, tuple(down if index in downs else block for index in range(6)), block, ())


@pytest.mark.parametrize(
    ("strided", "pooled", "inside", "skips"),
    [
        (None, None, [17, 17, 9, 9, 5, 5], [17, 17, 9, 9, 5, 5]),
        (2, None, [17, 17, 5, 5, 3, 3], [17, 17, 5, 5, 3, 3]),
        (4, None, [17, 17, 9, 9, 3, 3], [17, 17, 9, 9, 3, 3]),
        (None, 3, [17, 17, 9, 9, 3, 3], [17, 17, 9, 5, 3, 3]),
        (2, 3, [17, 17, 5, 5, 2, 2], [17, 17, 5, 3, 2, 2]),
    ],
)
def test_the_sizes_inside_a_call_are_rounded_up(
    strided: int | None, pooled: int | None, inside: list[int], skips: list[int]
) -> None:
    strides, pools = ({block: by} if block else {} for block, by in ((strided, 4), (pooled, 2)))
    sizes = feature_sizes(unet(2, 4), Sizing((17, 34), strides=strides, pools=pools))
    assert [height for height, _ in sizes.inside] == inside
    assert [height for height, _ in sizes.skips] == skips
    turned = feature_sizes(unet(2, 4), Sizing((34, 17), strides=strides, pools=pools))
    assert [width for _, width in turned.inside] == inside
    assert [width for _, width in turned.skips] == skips
