"""What a host answered, on disk: one JSON file and its pictures per question."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

from .comparison import Question

REFUSED = "HiDiffusion refused"
"""Where an infotext says why the extension did not do what it was asked for."""

PREVIEW = 384
"""Longest side of a preview, in pixels."""


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes:
        seconds: From request to answer, for all its pictures.
        counted: Whether they mean anything: the first request of an arm at a size in a run also loads and prepares, and
            where the extension refused something they are not the arm's.
        memory: The most that the WebUI's PyTorch had reserved of the graphics card meanwhile, in bytes, if it tells.
        pictures: Names of files beside the record, one per seed.
        infotext: The text under the first picture.
        done: What the infotext says the extension did: its entries that begin with HiDiffusion, by key.
        version: Of the WebUI.
        error: Why there are no pictures, a sentence; empty if there are.
        error_kind: The same without anything of the machine.
    """

    seconds: float = 0.0
    counted: bool = False
    memory: int | None = None
    pictures: Sequence[str] = ()
    infotext: str = ""
    done: dict[str, str] = field(default_factory=dict)
    version: str = ""
    error: str = ""
    error_kind: str = ""


class Store:
    """A folder of answers by question.

    Args:
        folder: The results' folder; records and pictures are in `pictures/`, previews of them in `previews/`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._pictures, self._previews = folder / "pictures", folder / "previews"

    def answer(self, question: Question) -> Answer | None:
        """What is known of a question; None if it was never answered or a file of the answer is lost."""
        try:
            answer = Answer(**json.loads(self._record(question).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return answer if all((self._pictures / name).exists() for name in answer.pictures) else None

    def is_done(self, question: Question) -> bool:
        """Whether its pictures are there."""
        answer = self.answer(question)
        return answer is not None and not answer.error

    def keep(self, question: Question, answer: Answer, pictures: Sequence[bytes] = ()) -> None:
        """Writes the pictures, PNG, JPEG or WebP as the WebUI encodes them, and then the record that names them."""
        self._pictures.mkdir(parents=True, exist_ok=True)
        names = []
        for number, encoded in enumerate(pictures):
            suffix = str(Image.open(io.BytesIO(encoded)).format).lower()
            names.append(f"{question.key}-{number}.{suffix}")
            self._write(self._pictures / names[-1], encoded)
            (self._previews / f"{question.key}-{number}.jpg").unlink(missing_ok=True)
        record = {**asdict(answer), "pictures": names}
        self._write(self._record(question), json.dumps(record, indent=1).encode())

    def picture(self, name: str) -> Path:
        """Where a picture is."""
        return self._pictures / name

    def preview(self, name: str) -> Path:
        """Where a small copy of a picture is; made when it is first asked for."""
        file = (self._previews / name).with_suffix(".jpg")
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(self.picture(name)) as picture:
                small = picture.convert("RGB")
            small.thumbnail((PREVIEW, PREVIEW), Image.Resampling.LANCZOS)
            small.save(file, quality=90)
        return file

    def _record(self, question: Question) -> Path:
        return self._pictures / f"{question.key}.json"

    @staticmethod
    def _write(file: Path, content: bytes) -> None:
        """Writes a file that is there whole or not at all."""
        partial = file.with_suffix(file.suffix + ".part")
        partial.write_bytes(content)
        os.replace(partial, file)
