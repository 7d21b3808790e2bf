"""Resizing without operators that some devices lack: the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hidiffusion_ext.core.raunet import pool
from hidiffusion_ext.core.resizing import bicubic, bicubic_by_matrices

SIZES = [((8, 8), (16, 16)), ((9, 15), (17, 30)), ((16, 12), (15, 11)), ((1, 1), (2, 2)), ((33, 20), (20, 33))]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_matrices_give_what_the_interpolation_gives(source: tuple[int, int], target: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *source)
    expected = torch.nn.functional.interpolate(x, size=target, mode="bicubic")
    torch.testing.assert_close(bicubic_by_matrices(x, target), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(bicubic(x, target), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, 9, 7).to(dtype)
    expected = torch.nn.functional.interpolate(x.float(), size=(17, 13), mode="bicubic").to(dtype)
    assert torch.equal(bicubic(x, (17, 13)), expected)
    torch.testing.assert_close(bicubic_by_matrices(x, (17, 13)), expected)


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
    bicubic_by_matrices(torch.randn(1, 2, 7, 9), (14, 18))  # its tables are made on the processor
    with Forbidden():
        bicubic_by_matrices(torch.randn(1, 2, 7, 9), (14, 18))
        pool(torch.randn(1, 2, 7, 9))
        with pytest.raises(AssertionError):
            bicubic(torch.randn(1, 2, 7, 9), (14, 18))
