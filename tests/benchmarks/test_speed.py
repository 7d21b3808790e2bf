"""The speed benchmark counts what the paper counts, cuts passes where they change, and computes its rows right."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from unets import inputs, tiny_shape, tiny_unet

from benchmarks.speed import autoencoder, subjects
from benchmarks.speed.autoencoder import STRUCTURE, Autoencoder
from benchmarks.speed.calls import Method, OperationCounter, Phase, Setting
from benchmarks.speed.hyper_tile import hyper_tile
from benchmarks.speed.overhead import overhead
from benchmarks.speed.profiling import KINDS, OTHER, profile_in_turns, profile_table
from benchmarks.speed.report import Row, plot, rows, summary, table, update_file, work, work_table
from benchmarks.speed.subjects import Subject, always
from benchmarks.speed.timing import Timing, time_in_turns, time_once
from benchmarks.speed.window_attention import window_attention
from hidiffusion_ext.core import Family, Options, make_plan, map_unet
from hidiffusion_ext.core import Method as CoreMethod
from ldm_unet import SD15, SDXL, Shape

ROOT = Path(__file__).resolve().parents[2]


def setting(model: str, side: int) -> Setting:
    return Setting(model, side, side, 1, torch.float32, "cpu", steps=50)


def test_the_operations_are_those_of_the_published_counts() -> None:
    """SD1.5, one call at 1024x1024: 4.67 TFLOP, 1.81 with RAU-Net and MSW-MSA, 3.39 with MSW-MSA."""
    counter = OperationCounter(SD15, setting("sd15", 1024))
    plan = make_plan(Options(), map_unet(counter.unet), (128, 128))
    assert counter.count(nullcontext(), 0) / 1e12 == pytest.approx(4.67, abs=0.01)
    assert counter.count(counter.patched(plan), 0) / 1e12 == pytest.approx(1.81, abs=0.01)
    assert counter.count(counter.patched(plan), 30) / 1e12 == pytest.approx(3.39, abs=0.01)


def test_sides_that_cannot_be_halved_evenly_are_counted() -> None:
    counter = OperationCounter(tiny_shape(Family.SD1), Setting("tiny", 720, 1280, 1, torch.float32, "cpu", steps=50))
    even = OperationCounter(tiny_shape(Family.SD1), Setting("tiny", 768, 1280, 1, torch.float32, "cpu", steps=50))
    plan = make_plan(Options(), map_unet(counter.unet), (90, 160))
    assert counter.count(counter.patched(plan), 0) < counter.count(nullcontext(), 0) < even.count(nullcontext(), 0)


def test_the_operations_of_scalecrafter() -> None:
    """At four times the native side all factors are whole: looking further costs nothing, wider kernels do."""
    counter = OperationCounter(tiny_shape(Family.SD1), Setting("tiny", 256, 256, 2, torch.float32, "cpu", steps=50))
    vanilla = counter.count(nullcontext(), 0)

    def share(**options: bool) -> float:
        wanted = Options(method=CoreMethod.SCALECRAFTER, native_size=64, msw_msa=False, **options)
        return counter.count(counter.patched(make_plan(wanted, map_unet(counter.unet), (32, 32))), 0) / vanilla

    assert share(damped_guidance=False) == 1
    assert share(damped_guidance=True) == 1.5
    assert 1 < share(damped_guidance=False, dispersion=True) < 25 / 9


def make_tiny(monkeypatch: pytest.MonkeyPatch, native: int) -> None:
    """Makes a model "tiny" with a native side of so many pixels, and the autoencoder narrow."""
    monkeypatch.setitem(STRUCTURE, "ch", 32)
    monkeypatch.setitem(subjects.MODELS, "tiny", tiny_shape(Family.SD1))
    for name, options in subjects.OURS.items():
        monkeypatch.setitem(subjects.OURS, name, replace(options, native_size=native))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Subject:
    make_tiny(monkeypatch, 64)
    return Subject(setting("tiny", 128))


def test_every_method_is_timed_and_leaves_the_unet_as_it_was(tiny: Subject) -> None:
    t = torch.tensor([999.0])
    with torch.inference_mode():
        before = tiny.unet(tiny.x, t, context=tiny.context)
    methods = list(tiny.methods())
    timings = time_in_turns(methods, 2, "cpu")
    assert all(len(timing.seconds) == 2 and min(timing.seconds) > 0 for timing in timings)
    with torch.inference_mode():
        assert torch.equal(tiny.unet(tiny.x, t, context=tiny.context), before)
    ours = next(method for method in methods if method.name == "RAU-Net + MSW-MSA")
    assert [(p.name, p.step) for p in ours.phases] == [("strided pair + windows", 0), ("windows", 20)]
    assert ours.counts(50) == {"strided pair + windows": 20, "windows": 30}
    assert ours.counts(20) == {"strided pair + windows": 8, "windows": 12}
    stretched = next(method for method in methods if method.name == "ScaleCrafter")
    plain, strided, windows = (phase.operations or 0 for phase in (methods[0].phases[0], *ours.phases))
    assert 0 < strided < windows < plain
    assert [(p.name, p.step) for p in stretched.phases] == [("re-dilation by 2", 0), ("nothing", 30)]
    faster, whole = (
        next(method for method in methods if method.name == name)
        for name in ("Native first", "Native first, nothing left out")
    )
    assert whole.counts(50) == {"native": 50, "over the picture": 15, "over what is kept": 0}
    assert sum(faster.counts(50).values()) < 65
    assert faster.counts(50)["over what is kept"] > 5


def test_large_pictures_go_through_the_autoencoder_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRUCTURE, "ch", 32)
    monkeypatch.setattr(autoencoder, "TILE", 8)
    model, latent = Autoencoder(), torch.randn(1, 4, 16, 12)
    with torch.inference_mode():
        picture, back = model.decode(latent), model.encode_size_of(latent)
        torch.testing.assert_close(picture[..., :64, :64], model.decoder(latent[..., :8, :8]))
        torch.testing.assert_close(picture[..., 64:, 64:], model.decoder(latent[..., 8:, 8:]))
    assert (picture.shape, back.shape) == ((1, 3, 128, 96), (1, 8, 16, 12))


def test_calls_that_take_minutes_are_made_once(tiny: Subject) -> None:
    methods = [method for method in tiny.methods() if method.name in ("vanilla", "official", "vanilla diffusers")]
    made = list[tuple[str, int]]()
    for index, method in enumerate(methods):
        counted = partial(lambda own, step, run: made.append((own.name, step)) or own.call(step, run), method)
        methods[index] = replace(method, call=counted)
    timings = time_once(methods, "cpu")
    assert made == [(timing.method.name, timing.phase.step) for timing in timings]
    assert all(len(timing.seconds) == 1 and timing.seconds[0] > 0 and timing.peak_bytes is None for timing in timings)
    assert {row.peak_bytes for row in rows(tiny.setting, timings)} == {None}


@pytest.mark.parametrize(
    ("latent", "tile", "grid"), [((32, 32), 8, (4, 4)), ((24, 48), 8, (3, 6)), ((48, 24), 7, (8, 4))]
)
def test_hyper_tile_looks_at_tiles_of_at_most_that_side(
    latent: tuple[int, int], tile: int, grid: tuple[int, int]
) -> None:
    unet = tiny_unet()
    x, context = inputs(latent)
    time = torch.tensor([999.0])
    before = unet(x, time, context)
    attention = unet.get_submodule(map_unet(unet).finest_attentions[0].name)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    with hyper_tile(unet, map_unet(unet), latent, tile):
        handle = attention.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        unet(x, time, context)
        handle.remove()
    ny, nx = grid
    assert seen[0].shape[:2] == (len(x) * ny * nx, latent[0] // ny * (latent[1] // nx))
    assert torch.equal(unet(x, time, context), before)


def test_hyper_tile_puts_every_token_back_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = tiny_unet()
    x, context = inputs((24, 48))
    time = torch.tensor([999.0])
    for site in map_unet(unet).finest_attentions:
        monkeypatch.setattr(unet.get_submodule(site.name), "forward", lambda tokens, **rest: tokens)
    before = unet(x, time, context)
    with hyper_tile(unet, map_unet(unet), (24, 48), 8):
        assert torch.equal(unet(x, time, context), before)


def test_a_profile_shows_each_kind_of_operation_where_it_is(tiny: Subject) -> None:
    methods = [method for method in tiny.methods() if method.name in ("vanilla", "RAU-Net + MSW-MSA")]
    profiles = profile_in_turns(methods, 1, "cpu")
    assert list(profiles) == [(method.name, phase.name) for method in methods for phase in method.phases]
    assert all(list(shares) == [*KINDS, OTHER] and min(shares.values()) > 0 for shares in profiles.values())
    assert profile_table(profiles).count("\n") == 1 + len(profiles)

    x = torch.ones(64, 64)
    phases = (Phase("always", 0),)
    move = Method("move", phases, always, nullcontext, lambda step, run: x.index_select(0, torch.arange(64)))
    (shares,) = profile_in_turns([move], 1, "cpu").values()
    assert {kind for kind, seconds in shares.items() if seconds} == {"copies and resizes", OTHER}


@pytest.mark.parametrize("shape", [SD15, SDXL])
def test_the_overhead_of_each_family(shape: Shape) -> None:
    figures = overhead(shape, 2)
    assert list(figures) == ["map the UNet", "plan a pass", "patch and restore", "hooks of one call"]
    assert min(figures.values()) > 0


@pytest.mark.parametrize("shape", [SD15, SDXL])
def test_windows_are_timed_with_and_without_cutting(shape: Shape) -> None:
    figures = window_attention(shape, 1, cells=8)
    assert list(figures) == ["self-attention in windows", "its window attentions alone"]
    assert min(figures.values()) > 0


def test_every_method_runs_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny(monkeypatch, 32)
    subject = Subject(Setting("tiny", 96, 96, 2, torch.bfloat16, "cpu", steps=10))
    with torch.inference_mode():
        methods = list(subject.methods())
        assert {"ScaleCrafter + dispersion", "ScaleCrafter + damped guidance"} <= {method.name for method in methods}
        for method in methods:
            with method.open() as run:
                method.call(0, run)


def timing(
    name: str, phases: dict[str, tuple[int, int | None, float]], pictures: tuple[str, ...] = ("decode",)
) -> list[Timing]:
    """{phase: (steps of 50, operations, seconds per call)}"""
    made = tuple(
        Phase(phase, 0, partial(int, operations) if operations else lambda: None)
        for phase, (_, operations, _) in phases.items()
    )

    def counts(steps: int) -> dict[str, int]:
        return {phase: count * steps // 50 for phase, (count, _, _) in phases.items()}

    method = Method(name, made, counts, nullcontext, lambda step, run: None, pictures)
    return [Timing(method, phase, (phases[phase.name][2],) * 3, peak_bytes=8) for phase in made]


def test_rows_put_a_pass_together_and_compare_ratios(tmp_path: Path) -> None:
    timings = [
        *timing("vanilla", {"always": (50, 100, 4.0)}),
        *timing("RAU-Net + MSW-MSA", {"first": (20, 25, 1.0), "windows": (30, 50, 2.0)}),
        *timing("vanilla diffusers", {"always": (50, 100, 6.0)}),
        *timing("official", {"first": (20, 25, 2.0), "windows": (30, 50, 3.0)}),
        *timing("token merging 50%", {"always": (50, None, 2.0)}),
    ]
    made = rows(setting("sd15", 1024), timings)
    ours = {row.phase: row for row in made if row.method == "RAU-Net + MSW-MSA"}
    assert [(row.speedup_over_vanilla, row.bound) for row in ours.values()] == [(4.0, 4.0), (2.0, 2.0), (2.5, 2.5)]
    assert ours["first"].ours_over_official == 0.75
    assert ours["windows"].ours_over_official == 1.0
    assert ours["pass"].ours_over_official == pytest.approx(300 / 130 / 2.5, abs=1e-3)
    merging = made[-1]
    assert (merging.phase, merging.speedup_over_vanilla, merging.bound) == ("pass", 2.0, None)
    path = tmp_path / "speed.json"
    assert not any("job" in row.phase for row in made)
    assert update_file(path, made) == made
    assert update_file(path, made[:2]) == made[:2]  # the same setting measured again
    both = update_file(path, rows(setting("sd15", 2048), timings))
    assert {row.height for row in both} == {1024, 2048}
    assert "| RAU-Net + MSW-MSA | first | 4.00 | 4.00 | 1.00 | 0.75 |" in table(made)
    plot(made, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 1000


def test_a_job_is_guided_and_has_its_pictures_too() -> None:
    timings = [
        *timing("vanilla", {"always": (50, 100, 4.0)}),
        *timing("hires fix", {"native": (50, 10, 0.5), "over": (15, 100, 4.0)}, ("decode native", "encode", "decode")),
        *timing("autoencoder", {"decode": (0, None, 8.0), "decode native": (0, None, 2.0), "encode": (0, None, 5.0)}),
    ]
    made = {(row.method, row.phase): row for row in rows(setting("sd15", 1024), timings)}
    assert made["vanilla", "job of 50 steps"].seconds_median == 2 * 50 * 4 + 8
    assert made["vanilla", "job of 20 steps"].seconds_median == 2 * 20 * 4 + 8
    twice = made["hires fix", "job of 50 steps"]
    assert twice.seconds_median == 2 * (50 * 0.5 + 15 * 4) + 15
    assert (twice.speedup_over_vanilla, twice.bound) == (round(408 / 185, 3), None)
    assert made["hires fix", "job of 20 steps"].seconds_median == 2 * (20 * 0.5 + 6 * 4) + 15
    assert made["hires fix", "pass"].bound == pytest.approx(50 * 100 / (50 * 10 + 15 * 100), abs=1e-3)
    assert not any(method == "autoencoder" for method, _ in made)


def test_a_short_table_has_the_jobs_and_the_documents_have_the_figures() -> None:
    written = json.loads((ROOT / "benchmarks/results/speed.json").read_text(encoding="utf-8"))
    measured = [Row(**values) for values in written]
    assert table(measured) in (ROOT / "benchmarks/results/speed.md").read_text(encoding="utf-8")
    document = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    assert summary(measured) in document
    counted = json.loads((ROOT / "benchmarks/results/work.json").read_text(encoding="utf-8"))
    assert work_table(counted) in document
    timings = [*timing("vanilla", {"always": (50, 1, 4.0)}), *timing("Native first", {"always": (50, 1, 2.0)})]
    timings += [*timing("HyperTile", {"always": (50, 1, 4.0)}), *timing("autoencoder", {"decode": (0, None, 0.0)})]
    assert summary(rows(setting("sd15", 1024), timings)).splitlines()[2:] == [
        f"| sd15, 1024x1024, {steps} steps, batch 1, float32, cpu | – | – | – | – | – | **2.0** | – | 1.0 | – |"
        for steps in (20, 50)
    ]


def test_the_work_of_whole_jobs_is_counted_with_their_pictures() -> None:
    methods = [
        *(made.method for made in timing("vanilla", {"always": (50, 100, 4.0)})),
        *(made.method for made in timing("hires fix", {"native": (50, 10, 0.5), "over": (15, 100, 4.0)}, ("decode",))),
        *(made.method for made in timing("Relay", {"always": (50, None, 4.0)})),
        *(made.method for made in timing("autoencoder", {"decode": (0, 1000, 8.0)})[:1]),
    ]
    found = work(setting("sd15", 1024), methods)
    plain, twice = 1000 + 2 * 50 * 100, 1000 + 2 * (50 * 10 + 15 * 100)
    assert found["sd15, 1024x1024, 50 steps"] == {
        "vanilla": 1.0,
        "hires fix": round(plain / twice, 2),
        "autoencoder": round(1000 / twice, 2),
    }
    assert work_table({"job": found["sd15, 1024x1024, 50 steps"]}).splitlines()[2:] == [
        "| job | – | – | **2.2** | – | – | – | – | – | – | 20% |"
    ]
