"""A training in a small file, to go on with on another machine.

The averaged weights of UNet and text encoder in 5 bits, those of the autoencoder in half precision, packed by LZMA:
a thirtieth of the checkpoints. The rounding is small beside what a few dozen iterations change, and mends in them.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import torch
from safetensors.torch import load, save

from .autoencoder import CHECKPOINT as AUTOENCODER_CHECKPOINT
from .common import Run, load_checkpoint, save_checkpoint
from .unet import CHECKPOINT as UNET_CHECKPOINT

LEVELS = 15
"""Steps on either side of zero, up to the largest weight of a tensor's row."""

SCALE = "scale of "
AUTOENCODER, UNET = "autoencoder.", "unet."


def pack(run: Run, path: Path) -> Path:
    """Writes the state of the run's folder into one file; returns its path."""
    autoencoder = load_checkpoint(run.folder / AUTOENCODER_CHECKPOINT, torch.device("cpu"))
    unet = load_checkpoint(run.folder / UNET_CHECKPOINT, torch.device("cpu"))
    if autoencoder is None or unet is None:
        raise FileNotFoundError(f"{run.folder} has no autoencoder and UNet to pack.")
    tensors = {AUTOENCODER + name: weight.half() for name, weight in autoencoder["model"].items()}
    for name, weight in unet["average"].items():
        if not weight.is_floating_point() or weight.ndim < 2:
            tensors[UNET + name] = weight
            continue
        scale = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True).clamp(min=1e-8) / LEVELS
        tensors[SCALE + UNET + name] = scale.half()
        tensors[UNET + name] = (weight / scale.half().float().clamp(min=1e-8)).round().clamp(-127, 127).to(torch.int8)
    numbers = {"iteration": str(unet["iteration"]), "scale_factor": repr(unet["scale_factor"])}
    numbers["autoencoder_iteration"] = str(autoencoder["iteration"])
    path.write_bytes(lzma.compress(save(tensors, numbers), preset=6))
    return path


def unpack(run: Run, path: Path) -> None:
    """Writes the checkpoints that a training in the run's folder goes on from; the optimizers begin anew."""
    content = lzma.decompress(path.read_bytes())
    tensors = load(content)
    numbers = _metadata(content)
    autoencoder = {k.removeprefix(AUTOENCODER): v.float() for k, v in tensors.items() if k.startswith(AUTOENCODER)}
    unet: dict[str, torch.Tensor] = {}
    for name, weight in tensors.items():
        if name.startswith(UNET):
            scale = tensors.get(SCALE + name)
            unet[name.removeprefix(UNET)] = weight if scale is None else weight.float() * scale.float()
    iteration = int(numbers["autoencoder_iteration"])
    save_checkpoint(run.folder / AUTOENCODER_CHECKPOINT, {"model": autoencoder, "iteration": iteration})
    state = {"model": unet, "average": unet, "scale_factor": float(numbers["scale_factor"])}
    save_checkpoint(run.folder / UNET_CHECKPOINT, {**state, "iteration": int(numbers["iteration"])})


def _metadata(content: bytes) -> dict[str, str]:
    """The strings in the header of a safetensors file: 8 bytes of its length, then JSON."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]
