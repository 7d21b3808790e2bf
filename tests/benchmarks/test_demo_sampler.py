"""What a picture of a cell costs is counted for the whole job, whatever was made before."""

from __future__ import annotations

from benchmarks.quality.cells import Cell
from benchmarks.quality.demo_sampler import DemoSampler


def test_operations_are_those_of_the_whole_job() -> None:
    sampler = DemoSampler(steps=2, guidance=4.0, bfloat16=False)
    enlarged = Cell("native + Lanczos", 256, 256)
    sampler.sample(enlarged, sampler.captions[:1], [enlarged.seed(0)])
    native = sampler.operations(Cell("native", 128, 128))
    assert sampler.operations(enlarged) == native
    direct, hidiffusion = (sampler.operations(Cell(method, 256, 256)) for method in ("direct", "HiDiffusion"))
    assert hidiffusion < direct
    assert 4 * native < direct < 16 * native
