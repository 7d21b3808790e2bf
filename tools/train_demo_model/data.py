"""Pictures to learn from: one emoji on a plain or gradient background, at a random place and scale, or a part of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import resvg_py
import torch
from PIL import Image, ImageDraw

SIDE = 128  # pixels, the model's native picture side
LARGEST_OBJECT = 640  # pixels; the drawings are rendered once at this size and made smaller from there
OBJECT_SIDE = (0.72, 0.88)  # longer side of the object as a share of the picture's side
OFF_CENTRE = 0.06  # the object's centre is at most this share of the side away from the picture's, per axis
CLOSE_UP = (1.3, 4.5)  # how many times nearer than a whole picture a close-up is
MIN_CONTRAST = 0.35  # RGB distance (components in 0..1) kept between background and the object's rim
LABELS_FILE = Path(__file__).with_name("emoji.txt")
DRAWINGS = Path(__file__).with_name("emoji")

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Glyph:
    """One emoji: its caption, its cropped RGBA picture at `LARGEST_OBJECT`, and the mean RGB of its rim (0..1)."""

    caption: str
    image: Image.Image
    rim: np.ndarray


def read_labels(path: Path = LABELS_FILE) -> list[tuple[str, str]]:
    """The (character, caption) pairs of the label file, one "<emoji> <caption>" per line."""
    pairs = [line.split(" ", 1) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return [(character, caption) for character, caption in pairs]


@cache
def load_glyph(caption: str) -> Glyph:
    """The emoji of a caption, rendered once."""
    drawing = (DRAWINGS / f"{caption.replace(' ', '-')}.svg").read_text(encoding="utf-8")
    canvas = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=drawing, width=LARGEST_OBJECT))))
    image = canvas.convert("RGBA").crop(canvas.getbbox())
    width, height = (max(1, round(side * SIDE / LARGEST_OBJECT)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BOX)
    return Glyph(caption, image, _rim_colour(np.asarray(small, dtype=np.float32) / 255))


def load_glyphs(count: int | None = None) -> list[Glyph]:
    """Every emoji of the label file, or so many, in file order; all take seconds the first time."""
    return [load_glyph(caption) for _, caption in read_labels()[:count]]


def compose(glyph: Glyph, rng: np.random.Generator, side: int = SIDE) -> tuple[np.ndarray, Box]:
    """Draws one whole picture.

    Returns:
        The picture as uint8 `[side, side, 3]`, and the object's box.
    """
    longer = rng.uniform(*OBJECT_SIDE) * side
    factor = longer / max(glyph.image.size)
    width, height = (max(1, round(length * factor)) for length in glyph.image.size)
    left, top = (_place(length, side, rng) for length in (width, height))
    picture = Image.fromarray((_background(glyph.rim, side, rng) * 255).round().astype(np.uint8))
    scaled = glyph.image.resize((width, height), Image.Resampling.LANCZOS)
    picture.paste(scaled, (left, top), scaled)
    return np.asarray(picture), (left, top, left + width, top + height)


def close_up(glyph: Glyph, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Draws a part of a larger picture; every distance of `CLOSE_UP` is as frequent as its half.

    Returns:
        uint8 `[SIDE, SIDE, 3]`, and how many times nearer than a whole picture that is.
    """
    zoom = float(np.exp(rng.uniform(*np.log(CLOSE_UP))))
    return cut(glyph, rng, SIDE, zoom), zoom


def cut(glyph: Glyph, rng: np.random.Generator, side: int, zoom: float) -> np.ndarray:
    """A random `[side, side, 3]` cut, around a point of the object, of a picture `zoom` (1 or more) times as large."""
    picture, box = compose(glyph, rng, round(side * zoom))
    return crop_around(picture, box, side, rng)


def crop_around(picture: np.ndarray, box: Box, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random `[side, side, 3]` cut of a square picture whose centre lies inside the object's box."""
    left, top, right, bottom = box
    last = len(picture) - side
    x = int(np.clip(rng.integers(left, right) - side // 2, 0, last))
    y = int(np.clip(rng.integers(top, bottom) - side // 2, 0, last))
    return picture[y : y + side, x : x + side]


def to_tensor(pictures: list[np.ndarray]) -> torch.Tensor:
    """uint8 pictures `[H, W, 3]` -> float tensor `[B, 3, H, W]` in -1..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(tensor: torch.Tensor) -> np.ndarray:
    """Float tensor `[B, 3, H, W]` in -1..1 -> uint8 `[B, H, W, 3]`."""
    pixels = (tensor.float().clamp(-1, 1) + 1) * 127.5
    return pixels.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def save_grid(pictures: np.ndarray, path: Path, columns: int, captions: list[str] | None = None) -> None:
    """Writes `[B, H, W, 3]` pictures as one sheet, each with its caption below it."""
    _, height, width, _ = pictures.shape
    margin = 12 if captions else 0
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + 2), rows * (height + 2 + margin)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        x, y = (index % columns) * (width + 2), (index // columns) * (height + 2 + margin)
        sheet.paste(Image.fromarray(picture), (x, y))
        if captions:
            draw.text((x + 1, y + height), captions[index][: width // 6], fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _place(length: int, side: int, rng: np.random.Generator) -> int:
    """Where an object of `length` pixels starts on one axis; it stays inside the picture."""
    start = (side - length) / 2 + rng.uniform(-OFF_CENTRE, OFF_CENTRE) * side
    return int(np.clip(round(start), 0, side - length))


def _rim_colour(pixels: np.ndarray) -> np.ndarray:
    """Mean RGB of the opaque pixels of `[H, W, 4]` within three pixels of transparency."""
    opaque = np.pad(pixels[..., 3] > 0.5, 1)
    inner = opaque
    for _ in range(3):
        inner = inner & np.roll(inner, 1, 0) & np.roll(inner, -1, 0) & np.roll(inner, 1, 1) & np.roll(inner, -1, 1)
    rim = (opaque & ~inner)[1:-1, 1:-1]
    return pixels[rim, :3].mean(0)


def _background(rim: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A plain colour or (half of the time) a linear gradient of two, float `[side, side, 3]` in 0..1."""
    first = _colour(rim, rng)
    second = _colour(rim, rng) if rng.random() < 0.5 else first
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-1, 1, side)
    ramp = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    weight = (ramp - ramp.min()) / np.ptp(ramp)
    return first + weight[..., None] * (second - first)


def _colour(rim: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random RGB colour in 0..1 that stands off from the object's rim."""
    while True:
        colour = rng.uniform(0.1, 0.95, 3)
        if np.linalg.norm(colour - rim) >= MIN_CONTRAST:
            return colour
