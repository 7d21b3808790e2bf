"""CPU in float32 is all there is."""

from __future__ import annotations

import contextlib

import torch

cpu = device = torch.device("cpu")
dtype = dtype_vae = dtype_unet = dtype_inference = torch.float32
unet_needs_upcast = False
fp8 = False


def autocast(disable: bool = False) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def without_autocast(disable: bool = False) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def torch_gc() -> None:
    pass


def get_optimal_device() -> torch.device:
    return cpu


class NansException(Exception):
    pass


def test_for_nans(x: torch.Tensor, where: str) -> None:
    if torch.isnan(x).all():
        raise NansException(f"{where}: only NaN")
