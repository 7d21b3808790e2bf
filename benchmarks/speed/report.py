"""From timings to rows, and from rows to the file, the table and the plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from .calls import Method, Setting
from .subjects import AUTOENCODER, BASELINE, OFFICIAL, OURS, VANILLA
from .timing import Timing
from .two_passes import DEEP_CACHE, HIRES_FIX, HYPER_TILE, NATIVE_FIRST, NOTHING_LEFT_OUT

PASS = "pass"
"""The phase that stands for the whole pass: every phase's time by its number of steps."""

JOBS = (20, 50)
"""The steps of the whole jobs that are put together: UNet calls, and pictures decoded and encoded."""

ROWS_PER_PICTURE = 2
"""What a guided step evaluates for each picture of a job."""

COMPARABLE = "RAU-Net + MSW-MSA"
"""What the official code does by default."""

SUMMARISED = {
    COMPARABLE: "HiDiffusion",
    "Relay": "Relay",
    HIRES_FIX: "hires fix by hand",
    HYPER_TILE: "hires fix + HyperTile",
    DEEP_CACHE: "hires fix + DeepCache",
    NATIVE_FIRST: "Native first",
    NOTHING_LEFT_OUT: "Native first, nothing left out",
    "HyperTile": "HyperTile",
    OFFICIAL: "official code",
}
"""The methods of the short table, and what they are called there."""


@dataclass(frozen=True)
class Row:
    """One phase of a method at one setting, its whole pass, or a whole job.

    Attributes:
        steps: Of the pass.
        seconds_median: Of one call, of all calls of the pass, or of the job.
        spread: Half the range of the middle half of the times, as a share of the median.
        speedup_over_vanilla: By time, over the unpatched UNet of the same library.
        bound: The same by operations; None where they were not counted.
        achieved_over_bound: How much of it time shows; above 1 the saved operations were slower ones than the rest.
        ours_over_official: The official code's speed-up over ours in the same phase; below 1 ours is faster. Only in
            the row of what the official code does.
        peak_bytes: What the tensors of one call take at most at once, beyond the weights and the input; the most of all
            phases; None where it was not counted.
    """

    model: str
    height: int
    width: int
    batch: int
    dtype: str
    device: str
    steps: int
    method: str
    phase: str
    seconds_median: float
    spread: float
    speedup_over_vanilla: float
    bound: float | None
    achieved_over_bound: float | None
    ours_over_official: float | None
    peak_bytes: int | None


def rows(setting: Setting, timings: Sequence[Timing]) -> list[Row]:
    """A row per pass, before it one per phase if there are several, after it one per job, method by method."""
    by_method = {name: list(group) for name, group in groupby(timings, key=lambda timing: timing.method.name)}
    pictures = {timing.phase.name: timing.median for timing in by_method.pop(AUTOENCODER, [])}
    result: list[Row] = []
    for name, phases in by_method.items():
        (vanilla,) = by_method[BASELINE.get(name, VANILLA)]
        row = partial(_row, setting, vanilla)
        if len(phases) > 1:
            result += [row(timing.phase.name, [timing], [1], 1) for timing in phases]
        result.append(row(PASS, phases, _calls(phases, setting.steps), setting.steps))
        for steps in JOBS if pictures else ():
            result.append(row(_job(steps), phases, _calls(phases, steps), steps, pictures))
    official = {row.phase: row for row in result if row.method == OFFICIAL}
    return [_with_official(row, official) if row.method == COMPARABLE else row for row in result]


def _job(steps: int) -> str:
    """The phase that stands for a whole job of so many steps."""
    return f"job of {steps} steps"


def _calls(phases: Sequence[Timing], steps: int) -> list[float]:
    counts = phases[0].method.counts(steps)
    return [counts[timing.phase.name] for timing in phases]


def _row(
    setting: Setting,
    vanilla: Timing,
    phase: str,
    timings: Sequence[Timing],
    calls: Sequence[float],
    unpatched_calls: int,
    pictures: Mapping[str, float] | None = None,
) -> Row:
    """A row for so many calls of each phase against so many of the unpatched UNet; with pictures, of guided jobs."""

    def whole(seconds: float, timing: Timing) -> float:
        if not pictures:
            return seconds
        return ROWS_PER_PICTURE * seconds + sum(pictures[part] for part in timing.method.pictures)

    seconds = whole(sum(timing.median * count for timing, count in zip(timings, calls)), timings[0])
    speedup = whole(vanilla.median * unpatched_calls, vanilla) / seconds
    bound = None if pictures else _bound(timings, calls, vanilla, unpatched_calls)
    peaks = [timing.peak_bytes for timing in timings if timing.peak_bytes is not None]
    return Row(
        setting.model,
        setting.height,
        setting.width,
        setting.batch,
        str(setting.dtype).removeprefix("torch."),
        setting.device,
        setting.steps,
        timings[0].method.name,
        phase,
        round(seconds, 5),
        round(max(timing.spread for timing in timings), 3),
        round(speedup, 3),
        bound and round(bound, 3),
        bound and round(speedup / bound, 3),
        None,
        max(peaks, default=None),
    )


def _bound(timings: Sequence[Timing], calls: Sequence[float], vanilla: Timing, unpatched_calls: int) -> float | None:
    operations = [timing.phase.operations for timing in timings]
    plain = vanilla.phase.operations
    if plain is None or any(count is None for count in operations):
        return None
    return plain * unpatched_calls / sum((count or 0) * times for count, times in zip(operations, calls))


def _with_official(row: Row, official: dict[str, Row]) -> Row:
    theirs = official.get(row.phase)
    if theirs is None:
        return row
    ratio = round(theirs.speedup_over_vanilla / row.speedup_over_vanilla, 3)
    return Row(**{**asdict(row), "ours_over_official": ratio})


def update_file(path: Path, new: Sequence[Row]) -> list[Row]:
    """Puts rows into the file, in the place of those of the same settings; returns all of them."""
    old = [Row(**values) for values in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []
    measured = {_setting(row) for row in new}
    kept = [row for row in old if _setting(row) not in measured]
    merged = sorted([*kept, *new], key=_setting)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in merged], indent=1) + "\n", encoding="utf-8")
    return merged


def _setting(row: Row) -> tuple[str, str, str, int, int, int, int]:
    return row.model, row.device, row.dtype, row.batch, row.height, row.width, row.steps


def table(all_rows: Sequence[Row]) -> str:
    """Markdown: one table per setting."""
    parts: list[str] = []
    for (model, device, dtype, batch, height, width, steps), group in groupby(all_rows, key=_setting):
        parts.append(f"**{model}, {width}x{height}, batch {batch}, {dtype} on {device}, {steps} steps**\n")
        parts.append("| method | phase | speed-up | by operations | achieved | ours / official | memory | spread |")
        parts.append("|---|---|---|---|---|---|---|---|")
        for row in group:
            optional = (row.bound, row.achieved_over_bound, row.ours_over_official)
            bound, achieved, against = ("" if value is None else f"{value:.2f}" for value in optional)
            memory = "" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.2f} GiB"
            figures = f"{row.speedup_over_vanilla:.2f} | {bound} | {achieved} | {against} | {memory}"
            parts.append(f"| {row.method} | {row.phase} | {figures} | {row.spread:.0%} |")
        parts.append("")
    return "\n".join(parts)


def summary(all_rows: Sequence[Row]) -> str:
    """Markdown: how many times faster whole jobs are, a line per job and a column per method, the fastest in bold."""
    lines = ["| job | " + " | ".join(SUMMARISED.values()) + " |", "|---" * (1 + len(SUMMARISED)) + "|"]
    for (model, device, dtype, batch, height, width, _), group in groupby(all_rows, key=_setting):
        of_setting = list(group)
        for steps in JOBS:
            found = {row.method: f"{row.speedup_over_vanilla:.1f}" for row in of_setting if row.phase == _job(steps)}
            if not found:
                continue
            best = max(found.values(), key=float)
            cells = [found.get(method, "–") for method in SUMMARISED]
            cells = [f"**{cell}**" if cell == best else cell for cell in cells]
            lines.append(
                f"| {model}, {width}x{height}, {steps} steps, batch {batch}, {dtype}, {device} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def work(setting: Setting, methods: Sequence[Method]) -> dict[str, dict[str, float]]:
    """By operations: for each whole job, guided and with its pictures, how many times less work each method is than the
    plain UNet, to two digits, and under `AUTOENCODER` the autoencoder's share of the least of them.
    """
    pictures = {
        phase.name: phase.operations or 0 for method in methods if method.name == AUTOENCODER for phase in method.phases
    }
    found: dict[str, dict[str, float]] = {}
    for steps in JOBS:
        totals: dict[str, float] = {}
        shares: dict[str, float] = {}
        for method in methods:
            counts = method.counts(steps)
            operations = [(phase.operations, counts[phase.name]) for phase in method.phases if phase.name in counts]
            if method.name == AUTOENCODER or any(count is None for count, _ in operations):
                continue
            around = sum(pictures[part] for part in method.pictures)
            totals[method.name] = around + ROWS_PER_PICTURE * sum((count or 0) * calls for count, calls in operations)
            shares[method.name] = around / totals[method.name]
        job = f"{setting.model}, {setting.width}x{setting.height}, {steps} steps"
        found[job] = {name: round(totals[VANILLA] / total, 2) for name, total in totals.items()}
        found[job][AUTOENCODER] = round(shares[min(totals, key=totals.__getitem__)], 2)
    return found


def work_table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a line per job, a column per method."""
    lines = ["| job | " + " | ".join(SUMMARISED.values()) + " | autoencoder |", "|---" * (2 + len(SUMMARISED)) + "|"]
    for job, times in found.items():
        best = max(times[name] for name in SUMMARISED if name in times)
        cells = [f"{times[name]:.1f}" if name in times else "–" for name in SUMMARISED]
        cells = [f"**{cell}**" if cell == f"{best:.1f}" else cell for cell in cells]
        lines.append(f"| {job} | {' | '.join(cells)} | {times[AUTOENCODER]:.0%} |")
    return "\n".join(lines)


def plot(all_rows: Sequence[Row], path: Path) -> None:
    """Speed-up of whole passes against the operation count's, all methods and settings."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 6))
    passes = [row for row in all_rows if row.phase == PASS and row.method in (*OURS, OFFICIAL)]
    for method in dict.fromkeys(row.method for row in passes):
        own = [row for row in passes if row.method == method]
        bounds, speedups = [row.bound or 1.0 for row in own], [row.speedup_over_vanilla for row in own]
        axes.plot(bounds, speedups, "o", label=method)
    limit = max((max(row.bound or 1.0, row.speedup_over_vanilla) for row in passes), default=1.0) * 1.1
    axes.plot([1, limit], [1, limit], color="grey", linewidth=1, label="as the operations say")
    axes.set(xlabel="speed-up by operations", ylabel="speed-up by time", title="Whole passes")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, bbox_inches="tight")
    pyplot.close(figure)
