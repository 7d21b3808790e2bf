"""The text side: CLIP's tokenizer files, and captions as token ids."""

from __future__ import annotations

import gzip
import importlib.util
import json
import tempfile
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

from .model import TEXT_ENCODER, TOKENS, VOCABULARY

START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """Writes config, vocabulary and merges in transformers' layout, from the merges in PyPI's `clip-anytorch`."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = _read_merges()
    characters = list(bytes_to_unicode().values())
    words = [*characters, *(c + "</w>" for c in characters), *(m.replace(" ", "") for m in merges), START, END]
    vocabulary = {word: index for index, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    tokenizer_config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": TOKENS,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    _write_json(
        folder / "config.json", {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", **TEXT_ENCODER}
    )
    return CLIPTokenizer.from_pretrained(str(folder))


def make_tokenizer() -> CLIPTokenizer:
    """The tokenizer, for a process of its own: workers that wrote one folder at once would read halves of files."""
    with tempfile.TemporaryDirectory() as folder:
        return write_tokenizer(Path(folder))


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Captions -> token ids `[B, 77]`: start, words, end, and end again as padding (as Stable Diffusion 1 does)."""
    encoded = tokenizer(captions, truncation=True, max_length=TOKENS, padding="max_length", return_tensors="pt")
    return encoded["input_ids"]  # pyright: ignore[reportReturnType]


def encode(encoder: CLIPTextModel, tokens: torch.Tensor) -> torch.Tensor:
    """Token ids `[B, 77]` -> context `[B, 77, width]`: the last layer after its final norm."""
    return encoder(input_ids=tokens).last_hidden_state


@torch.no_grad()
def silence_other_words(encoder: CLIPTextModel, known: torch.Tensor) -> None:
    """Zeroes the embedding of every token that no caption uses: it never gets a gradient, so it would stay noise."""
    embedding = encoder.text_model.embeddings.token_embedding.weight
    used = torch.zeros(len(embedding), dtype=torch.bool, device=embedding.device)
    used[known.unique()] = True
    embedding[~used] = 0


def _read_merges() -> list[str]:
    specification = importlib.util.find_spec("clip")
    if specification is None or specification.origin is None:
        raise ModuleNotFoundError("The BPE merges come from the package clip-anytorch: pip install clip-anytorch.")
    packed = Path(specification.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")
    # A header line, then the merges; 256 bytes, each also as a word's end, and start and end fill up the vocabulary.
    return lines[1 : VOCABULARY - 2 * 256 - 2 + 1]


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
