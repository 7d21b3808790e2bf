"""Samples what is missing in the cells, until everything is there or the time is up."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tqdm import tqdm

from .cells import Cell, Sampler, Store, prompt_number

PIXELS_PER_BATCH = 4 * 256 * 256


def fill_cells(sampler: Sampler, store: Store, cells: Sequence[Cell], images: int, minutes: float) -> bool:
    """Makes the first `images` pictures of each cell, in order, as far as the time allows.

    What is on disk stays; an interrupted run goes on where it was. What a picture costs is counted once a cell.

    Returns:
        Whether everything is there.
    """
    deadline = time.monotonic() + 60 * minutes
    todo = {cell: store.missing(cell, images) for cell in cells}
    with tqdm(total=sum(map(len, todo.values())), unit="picture", mininterval=5) as bar:
        for cell, indices in todo.items():
            bar.set_description(cell.name)
            batch = max(1, PIXELS_PER_BATCH // (cell.height * cell.width))
            for start in range(0, len(indices), batch):
                if time.monotonic() >= deadline:
                    return False
                if store.operations(cell) is None:
                    store.write_operations(cell, sampler.operations(cell))
                _fill(sampler, store, cell, indices[start : start + batch])
                bar.update(len(indices[start : start + batch]))
    return True


def _fill(sampler: Sampler, store: Store, cell: Cell, indices: list[int]) -> None:
    prompts = [sampler.captions[prompt_number(index, len(sampler.captions))] for index in indices]
    seeds = [cell.seed(index) for index in indices]
    for index, picture in zip(indices, sampler.sample(cell, prompts, seeds), strict=True):
        store.write(cell, index, picture)
