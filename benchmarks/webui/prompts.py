"""The lists of prompts: the one that ships, and the user's own."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).with_name("prompts.txt")


def read(file: Path) -> list[str]:
    """The prompts of a file, one per line, each once; empty lines and those that begin with # are none.

    Raises:
        OSError: if it cannot be read.
        ValueError: if there is no such file or no prompt in it, or it is not UTF-8; a sentence.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"There is no file {file.absolute()}.") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} cannot be read: save it as UTF-8, which every editor can.") from None
    lines = [line.strip() for line in text.splitlines()]
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise ValueError(f"{file} holds no prompt.")
    return list(dict.fromkeys(prompts))
