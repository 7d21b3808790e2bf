"""Pictures to learn from: one emoji on a plain or gradient background, at a random place and scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

SIDE = 128  # pixels, the model's native picture side
BITMAP_SIZE = 109  # the only size at which FreeType renders the colour bitmaps (CBDT) of Noto Color Emoji
OBJECT_SIDE = (0.72, 0.88)  # longer side of the object as a share of the picture's side
OFF_CENTRE = 0.06  # the object's centre is at most this share of the side away from the picture's, per axis
MIN_CONTRAST = 0.35  # RGB distance (components in 0..1) kept between background and the object's rim
DEFAULT_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
LABELS_FILE = Path(__file__).with_name("emoji.txt")


@dataclass(frozen=True)
class Glyph:
    """One emoji: its caption, its cropped RGBA bitmap and the mean RGB colour (0..1) of its rim."""

    caption: str
    image: Image.Image
    rim: np.ndarray


def read_labels(path: Path = LABELS_FILE) -> list[tuple[str, str]]:
    """The (character, caption) pairs of the label file, one "<emoji> <caption>" per line."""
    pairs = [line.split(" ", 1) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return [(character, caption) for character, caption in pairs]


def load_glyphs(font_file: Path = DEFAULT_FONT) -> list[Glyph]:
    """Every emoji of the label file, rendered once, in file order."""
    font = ImageFont.truetype(str(font_file), BITMAP_SIZE)
    return [_render(font, character, caption) for character, caption in read_labels()]


def compose(glyph: Glyph, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Draws one picture.

    Returns:
        The picture as uint8 `[SIDE, SIDE, 3]`, and the object's box (left, top, right, bottom) in pixels.
    """
    longer = rng.uniform(*OBJECT_SIDE) * SIDE
    factor = longer / max(glyph.image.size)
    width, height = (max(1, round(side * factor)) for side in glyph.image.size)
    left, top = (_place(side, rng) for side in (width, height))
    picture = Image.fromarray((_background(glyph.rim, rng) * 255).round().astype(np.uint8))
    scaled = glyph.image.resize((width, height), Image.Resampling.LANCZOS)
    picture.paste(scaled, (left, top), scaled)
    return np.asarray(picture), (left, top, left + width, top + height)


def crop_around(picture: np.ndarray, box: tuple[int, int, int, int], side: int, rng: np.random.Generator) -> np.ndarray:
    """A random `[side, side, 3]` cut of the picture whose centre lies inside the object's box."""
    left, top, right, bottom = box
    x = int(np.clip(rng.integers(left, right) - side // 2, 0, SIDE - side))
    y = int(np.clip(rng.integers(top, bottom) - side // 2, 0, SIDE - side))
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


def _render(font: ImageFont.FreeTypeFont, character: str, caption: str) -> Glyph:
    canvas = Image.new("RGBA", (2 * BITMAP_SIZE, 2 * BITMAP_SIZE))
    ImageDraw.Draw(canvas).text((BITMAP_SIZE // 4, BITMAP_SIZE // 4), character, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"The font has no colour bitmap for {caption!r} (U+{ord(character):X}).")
    image = canvas.crop(box)
    pixels = np.asarray(image, dtype=np.float32) / 255
    return Glyph(caption, image, _rim_colour(pixels))


def _place(side: int, rng: np.random.Generator) -> int:
    """Where an object of `side` pixels starts on one axis; it stays inside the picture."""
    start = (SIDE - side) / 2 + rng.uniform(-OFF_CENTRE, OFF_CENTRE) * SIDE
    return int(np.clip(round(start), 0, SIDE - side))


def _rim_colour(pixels: np.ndarray) -> np.ndarray:
    """Mean RGB of the opaque pixels of `[H, W, 4]` within three pixels of transparency."""
    opaque = np.pad(pixels[..., 3] > 0.5, 1)
    inner = opaque
    for _ in range(3):
        inner = inner & np.roll(inner, 1, 0) & np.roll(inner, -1, 0) & np.roll(inner, 1, 1) & np.roll(inner, -1, 1)
    rim = (opaque & ~inner)[1:-1, 1:-1]
    return pixels[rim, :3].mean(0)


def _background(rim: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A plain colour or (half of the time) a linear gradient of two, float `[SIDE, SIDE, 3]` in 0..1."""
    first = _colour(rim, rng)
    second = _colour(rim, rng) if rng.random() < 0.5 else first
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-1, 1, SIDE)
    ramp = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    weight = (ramp - ramp.min()) / np.ptp(ramp)
    return first + weight[..., None] * (second - first)


def _colour(rim: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random RGB colour in 0..1 that stands off from the object's rim."""
    while True:
        colour = rng.uniform(0.1, 0.95, 3)
        if np.linalg.norm(colour - rim) >= MIN_CONTRAST:
            return colour
