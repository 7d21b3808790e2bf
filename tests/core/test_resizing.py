"""Resizing without operators that some devices lack: the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hidiffusion_ext.core.parts.raunet import pool
from hidiffusion_ext.core.resizing import bicubic, bilinear, by_matrices

SIZES = [((8, 8), (16, 16)), ((9, 15), (17, 30)), ((16, 12), (15, 11)), ((1, 1), (2, 2)), ((33, 20), (20, 33))]


RESIZES = {"bicubic": bicubic, "bilinear": bilinear}


@pytest.mark.parametrize("mode", RESIZES)
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_matrices_give_what_the_interpolation_gives(
    source: tuple[int, int], target: tuple[int, int], mode: str
) -> None:
    x = torch.randn(2, 3, *source)
    expected = torch.nn.functional.interpolate(x, size=target, mode=mode)
    torch.testing.assert_close(by_matrices(x, target, mode), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(RESIZES[mode](x, target), expected)


@pytest.mark.parametrize("mode", RESIZES)
@pytest.mark.parametrize("seamless", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("factor", [2, 5 / 4, 3 / 2])
def test_what_goes_on_at_its_other_edge_has_no_edge_there(
    seamless: tuple[bool, bool], factor: float, mode: str
) -> None:
    """Rolled along such an axis it gives the same, rolled; away from the edges it is as ever."""
    x, resize = torch.randn(1, 2, 12, 16), RESIZES[mode]
    size = round(12 * factor), round(16 * factor)
    found = resize(x, size, seamless)
    for axis, goes_on in zip((-2, -1), seamless):
        rolled = resize(x.roll(4, axis), size, seamless).roll(-round(4 * factor), axis)
        assert torch.allclose(rolled, found, atol=1e-5) == goes_on
    inside = slice(round(3 * factor), round(-3 * factor))
    bordered = resize(x, size)[..., inside, inside]
    torch.testing.assert_close(found[..., inside, inside], bordered, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, 9, 7).to(dtype)
    expected = torch.nn.functional.interpolate(x.float(), size=(17, 13), mode="bicubic").to(dtype)
    assert torch.equal(bicubic(x, (17, 13)), expected)
    torch.testing.assert_close(by_matrices(x, (17, 13), "bicubic"), expected)


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (8, 7), (7, 9), (1, 1)])
def test_the_pool_of_odd_sides_is_that_of_the_official_code(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(pool(x), torch.nn.functional.avg_pool2d(x, 2, ceil_mode=True))


class Forbidden(TorchDispatchMode):
    """Fails for what Macs lack or get wrong."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "bicubic" not in func.name(), func
        assert func.name() != "aten::avg_pool2d" or len(args) < 5 or not args[4], func
        return func(*args, **(kwargs or {}))


def test_nothing_that_macs_lack_is_asked_of_them() -> None:
    by_matrices(torch.randn(1, 2, 7, 9), (14, 18), "bicubic")  # its tables are made on the processor
    with Forbidden():
        by_matrices(torch.randn(1, 2, 7, 9), (14, 18), "bicubic")
        pool(torch.randn(1, 2, 7, 9))
        with pytest.raises(AssertionError):
            bicubic(torch.randn(1, 2, 7, 9), (14, 18))
