"""The comparison asks each picture once, goes on after whatever a host does, and says what is missing and why."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import server
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont
from scripted_host import CHECKPOINT, GIB, ScriptedHost
from told import parts_of, strengths_of

from benchmarks.webui import host as host_module
from benchmarks.webui.__main__ import main
from benchmarks.webui.arms import ARMS
from benchmarks.webui.comparison import CELL, Comparison, Size, native_size
from benchmarks.webui.facts import facts
from benchmarks.webui.figures import Row, rows
from benchmarks.webui.host import SETTLING, SHORT, Host
from benchmarks.webui.prompts import SHIPPED, read
from benchmarks.webui.running import ticking
from benchmarks.webui.store import Answer, Store
from hidiffusion_ext.core import Options
from hidiffusion_ext.core.parts.part import WHOLE
from hidiffusion_ext.core.words import SETTLED

REPOSITORY = Path(__file__).resolve().parents[2]
PROMPTS = ["a red fox", 'a "lighthouse" | <b>stormy</b>']
LOADS_A_MODEL = {"width": 64, "height": 64, "steps": 1}
OUT_OF_MEMORY = 500, {"error": "OutOfMemoryError", "errors": "CUDA out of memory in /home/somebody/webui/x.py"}


class Clock:
    """Stands in the place of the module `time`, where a WebUI is waited for: it goes on only while somebody sleeps.

    Attributes:
        meanwhile: What happens during each sleep.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self.meanwhile: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        self.meanwhile()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("benchmarks.webui.host.time", clock)
    return clock


@pytest.fixture
def host(clock: Clock) -> Iterator[ScriptedHost]:
    with ScriptedHost() as running:
        yield running


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text("# two of them\n\n" + "\n".join(PROMPTS), encoding="utf-8")
    return tmp_path / "out"


def run(url: str, out: Path, *words: str) -> int:
    return main(["--url", url, "--out", str(out), "--prompts", str(out.parent / "prompts.txt"), *words])


def figures(out: Path) -> dict[str, Row]:
    return {row.arm: row for row in rows(Comparison.load(out / "comparison.json"), Store(out))}


def table(out: Path) -> str:
    return (out / "table.md").read_text(encoding="utf-8")


def page(out: Path) -> str:
    return (out / "index.html").read_text(encoding="utf-8")


def settings(payload: dict[str, Any]) -> dict[str, Any]:
    return payload["alwayson_scripts"]["HiDiffusion"]["args"][0]


@pytest.mark.slow
def test_on_a_webui(out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All arms on the stand-in; again, which asks nothing; and the report without it."""
    job = ["--native-size", "64", "--steps", "4", "--sampler", "Euler", "--batch", "2"]
    with server.running([REPOSITORY]) as url:
        assert run(url, out, *job) == 0
        files = {file: file.stat().st_mtime_ns for file in (out / "pictures").iterdir()}
        assert run(url, out, *job) == 0
        assert files == {file: file.stat().st_mtime_ns for file in (out / "pictures").iterdir()}
        assert run(url, out, *job, "--sampler", "no such") == 2
        assert "knows no sampler 'no such'; it has DPM++ 2M, " in capsys.readouterr().err
    assert len([file for file in files if file.suffix == ".png"]) == len(ARMS) * len(PROMPTS) * 2
    assert {Image.open(file).size for file in files if file.suffix == ".png"} == {(128, 128)}
    by_arm = figures(out)
    for arm, done in {
        "direct": {},
        "HiDiffusion": {"RAU-Net": (1, 2, 4), "MSW-MSA": WHOLE},
        "ScaleCrafter": {"re-dilation": (1, 2, 4), "MSW-MSA": WHOLE},
        "hires": {},
        "hires-guided": {"MSW-MSA": WHOLE, "split guidance": WHOLE, "RAU-Net": SETTLED},
    }.items():
        told = [(parts_of(text.removeprefix("hires pass: ")), count) for text, count in by_arm[arm].done.items()]
        assert told == ([(done, 2)] if done else [])
    assert [strengths_of(text) for text in by_arm["hires-guided"].done] == [{"split guidance": 1.5}]
    assert all((row.asked, row.there, row.counted) == (2, 2, 1) for row in by_arm.values())
    assert all(row.seconds and row.faster and row.kept for row in by_arm.values())
    assert [row.memory for row in by_arm.values()] == [None] * len(ARMS)  # it has no graphics card
    assert by_arm["hires-guided"].promise.startswith("up to ")
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    before = page(out)
    assert run(url, out, "--html") == 0
    assert (page(out), opened) == (before, [(out / "index.html").as_uri()])


def test_each_picture_is_asked_once(host: ScriptedHost, out: Path) -> None:
    job = ["--arms", "direct", "hires guided", "--seeds", "1", "2", "2"]
    assert run(host.url, out, *job) == 0
    assert len(host.asked) == 8
    assert run(host.url, out, *job) == 0
    assert len(host.asked) == 8
    assert run(host.url, out, *job, "--arms", "direct", "HiDiffusion", "hires-guided") == 0
    assert [settings(payload)["enabled"] for payload in host.asked[8:]] == [True] * 4
    assert run(host.url, out, *job, "--steps", "30") == 0
    assert len(host.asked) == 20
    host.plan["model"] = f"SDXL ({CHECKPOINT}.safetensors)"  # the same file name, another model
    assert run(host.url, out, *job) == 0
    assert len(host.asked) == 28
    next((out / "pictures").glob("*.png")).unlink()
    host.plan["model"] = f"SD1.5 ({CHECKPOINT}.safetensors)"
    for again in ([], ["--steps", "30"], ["--arms", "HiDiffusion"]):
        assert run(host.url, out, *job, *again) == 0
    host.plan["model"] = f"SDXL ({CHECKPOINT}.safetensors)"
    assert run(host.url, out, *job) == 0
    assert len(host.asked) == 29  # the lost one alone


def test_every_setting_is_sent_so_that_the_owners_defaults_do_not_matter(host: ScriptedHost, out: Path) -> None:
    run(host.url, out, "--native-size", "768")
    for payload in host.asked:
        sent = settings(payload)
        assert sent == {"enabled": False} or sent.keys() == vars(Options()).keys()
        assert sent.get("native_size", 768) == 768
    assert len(host.asked) == len(ARMS) * len(PROMPTS)


def test_arms_are_settings_that_exist() -> None:
    for arm in ARMS.values():
        Options.from_mapping(arm.arguments({}))
        assert ARMS[arm.plain].settings is None
        assert ARMS[arm.plain].hires == arm.hires


def test_hires_arms_come_from_the_native_size(host: ScriptedHost, out: Path) -> None:
    run(host.url, out, "--arms", "hires", "--sizes", "256x128", "--cfg", "5")
    payload = host.asked[0]
    assert (payload["width"], payload["height"]) == (96, 48)
    assert (payload["hr_resize_x"], payload["hr_resize_y"], payload["denoising_strength"]) == (256, 128, 0.3)
    assert payload["hr_cfg"] == payload["cfg_scale"] == 5  # Forge has 1 for a second pass that is not told


@given(st.integers(8, 512), st.integers(8, 512), st.sampled_from([128, 512, 768, 1024]))
def test_a_native_size_has_the_aspect_and_the_area(width: int, height: int, native: int) -> None:
    size = Size(width * CELL, height * CELL)
    first = native_size(size, native)
    assert first.width % CELL == first.height % CELL == 0
    assert min(first.width, first.height) >= CELL
    if max(width, height) <= 4 * min(width, height):
        assert math.isclose(first.width * first.height, native**2, rel_tol=0.25)
        assert math.isclose(first.width / first.height, width / height, rel_tol=0.1)


def test_an_error_is_said_and_tried_again(host: ScriptedHost, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host.behave = lambda payload: OUT_OF_MEMORY if settings(payload).get("method") == "ScaleCrafter" else None
    assert run(host.url, out) == 1
    said = capsys.readouterr().out
    assert f"2 of {2 * len(ARMS)} requests failed; the page says why. The same command goes on" in said
    assert "still to be made" not in said
    assert "CUDA out of memory in /home/somebody" in page(out)
    assert "missing: HTTP 500, OutOfMemoryError (2)" in table(out)
    assert "somebody" not in table(out)
    assert figures(out)["HiDiffusion"].there == 2
    host.behave = lambda payload: None
    asked = len(host.asked)
    assert run(host.url, out) == 0
    assert len(host.asked) == asked + 2
    assert "missing" not in table(out)


def test_what_is_refused_by_the_extension_is_said(host: ScriptedHost, out: Path) -> None:
    host.info = {"extra_generation_params": {"HiDiffusion refused": "unknown setting; see /home/me/x/y.py"}}
    assert run(host.url, out, "--arms", "HiDiffusion") == 0
    assert "refused: unknown setting; see (path)" in table(out)
    assert '<td data-arm="HiDiffusion" class=refused>' in page(out)
    assert figures(out)["HiDiffusion"].counted == 0


def test_a_webui_that_restarts_is_waited_for(host: ScriptedHost, out: Path, clock: Clock) -> None:
    def behave(payload: dict[str, Any]) -> str | None:
        if len(host.asked) != 6:
            return None
        host.stop()
        return "drop"

    def restart() -> None:
        if clock.monotonic() == 3 * SETTLING:
            host.start()

    host.behave, clock.meanwhile = behave, restart
    assert run(host.url, out, "--arms", "direct", "HiDiffusion", "--seeds", "1", "2", "3", "--wait", "60") == 0
    assert clock.monotonic() == 4 * SETTLING
    assert len(host.asked) == 13
    assert [row.counted for row in figures(out).values()] == [4, 4]  # of 6: the first ones before and after it


def test_a_picture_that_takes_the_webui_down_is_left_out(host: ScriptedHost, out: Path) -> None:
    host.behave = lambda payload: "drop" if payload["prompt"] == PROMPTS[0] else None
    assert run(host.url, out, "--arms", "direct", "--wait", "5") == 1
    assert [payload["prompt"] for payload in host.asked] == [PROMPTS[0], PROMPTS[0], PROMPTS[1]]
    assert "the WebUI went away while making it" in table(out)


def test_a_webui_that_stays_away_ends_the_run(
    host: ScriptedHost, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def behave(payload: dict[str, Any]) -> str | None:
        if len(host.asked) < 2:
            return None
        host.stop()
        return "drop"

    host.behave = behave
    assert run(host.url, out, "--arms", "direct", "--wait", "1") == 1
    said = capsys.readouterr().out
    assert "went away and did not come back within 1 s. 1 of 2 are still to be made." in said
    assert "missing: not asked yet" in table(out)
    assert "not asked yet" in page(out)
    host.behave = lambda payload: None
    host.start()
    assert run(host.url, out, "--arms", "direct") == 0


def test_another_checkpoint_is_not_mixed_in(host: ScriptedHost, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host.info = {"sd_model_name": "another"}
    assert run(host.url, out, "--arms", "direct") == 1
    assert "made with another checkpoint" in table(out)
    host.info = {}

    def behave(payload: dict[str, Any]) -> str:
        host.plan["model"] = "SDXL (another)"
        return "drop"

    host.behave = behave
    assert run(host.url, out, "--arms", "direct", "--wait", "5") == 1
    assert "came back with SDXL (another)" in capsys.readouterr().out


def test_a_picture_that_does_not_come_back(host: ScriptedHost, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over, opener = threading.Event(), host_module._opener

    class Opener:
        """Nobody's patience ends but that with the picture that does not come."""

        def open(self, request: Any, timeout: float) -> Any:
            assert timeout == (1.5 if "txt2img" in request.full_url else SHORT)
            never = PROMPTS[0].encode() in (request.data or b"")
            return opener.open(request, timeout=0.2 if never else None)

    monkeypatch.setattr(host_module, "_opener", Opener())
    host.behave = lambda payload: over.wait() if payload["prompt"] == PROMPTS[0] else None
    try:
        assert run(host.url, out, "--arms", "direct", "--patience", "1.5") == 1
    finally:
        over.set()
    assert host.interrupted == 1
    assert "no answer within 1.5 s" in table(out)
    assert figures(out)["direct"].there == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": (64, 64)}, "it came back at 64x64 instead of 128x128"),
        ({"behave": lambda payload: (200, "<html>")}, "HTTP 200"),
        ({"behave": lambda payload: (200, {"images": [], "info": "{}"})}, "is not that of a WebUI"),
        ({"behave": lambda payload: (200, {"images": ["bm8="], "info": "{}"})}, "is not that of a WebUI"),
        ({"info": {"index_of_first_image": 1, "infotexts": ["", ""]}}, "0 of 1 pictures came back"),
    ],
)
def test_an_answer_that_is_none(host: ScriptedHost, out: Path, wrong: dict[str, Any], said: str) -> None:
    vars(host).update(wrong)
    assert run(host.url, out, "--arms", "direct") == 1
    assert said in table(out)


def test_times_that_count(host: ScriptedHost, out: Path) -> None:
    seconds = {"direct": [9.0, 2.0, 4.0, 6.0], "HiDiffusion": [1.0, 1.0, 4.0, 3.0]}
    run(host.url, out, "--arms", *seconds, "hires-guided", "--batch", "2", "--seeds", "1", "3")
    assert [row.counted for row in figures(out).values()] == [3, 3, 3]  # of 4
    store = Store(out)
    for question in Comparison.load(out / "comparison.json").questions:
        if question.arm in seconds:
            at = 2 * [1, 3].index(question.seed) + question.prompt
            store.keep(question, Answer(seconds=seconds[question.arm][at], counted=at > 0))
    direct, other, hires = figures(out).values()
    assert (direct.seconds, direct.faster) == (2.0, 1.0)  # of 2, 4, 6 s: the median, per picture
    assert (other.seconds, other.faster, other.kept) == (1.5, 2.0, 2.0)  # 2, 1 and 2 times
    assert hires.kept is None  # there is no "hires" to hold it against
    told = ["1.50 (n 3)", "2.00 times", "up to 1.7 times as fast as direct", "2.00 times"]
    assert other.cells()[2:6] == told
    slower = dataclasses.replace(other, promise="takes about 1.3 times as long")
    assert slower.cells()[4] == "takes about 1.3 times as long as direct"


def test_the_most_memory_that_was_seen(host: ScriptedHost, out: Path) -> None:
    def behave(payload: dict[str, Any]) -> None:
        for host.reserved in (5 * GIB, 2 * GIB):
            with host.has_told:
                host.has_told.wait_for(lambda: host.reserved in host.told)

    host.behave = behave
    run(host.url, out, "--arms", "direct")
    assert figures(out)["direct"].memory == 5 * GIB
    assert "| 5.00 GiB |" in table(out)


SYSTEM_INFO = {
    "Script path": "/home/somebody/webui",
    "Commandline": ["launch.py", "--xformers", "--ckpt-dir", "/home/somebody/models", "--medvram"],
    "Packages": ["xformers==0.0.23", "requests==2.31.0", "flash_attn @ file:///home/somebody/flash"],
    "Torch env info": {
        "torch_version": "2.1.2+cu121",
        "nvidia_driver_version": "550.54",
        "nvidia_gpu_models": "GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-1234)",
        "os": "Ubuntu 22.04",
    },
}


def test_the_table_names_the_machine_and_nothing_personal(host: ScriptedHost, out: Path) -> None:
    host.paths["/internal/sysinfo"] = SYSTEM_INFO
    host.paths["/sdapi/v1/options"] = {
        "cross_attention_optimization": "Doggettx",
        "outdir_samples": "/home/somebody/o",
    }
    assert facts(Host(host.url)) == {
        "card": "GPU 0: NVIDIA GeForce RTX 4090, 24.0 GiB",
        "driver": "550.54",
        "torch": "2.1.2+cu121",
        "attention and memory": "setting Doggettx, --medvram, --xformers, xformers==0.0.23",
        "system": "Ubuntu 22.04",
    }
    run(host.url, out)
    shown = table(out)
    for personal in ("somebody", CHECKPOINT, str(host.port), "127.0.0.1", *PROMPTS, str(out)):
        assert personal not in shown
    assert "- model: SD1.5\n" in shown
    assert "prompts: 2 of the user's own, seeds: 1" in shown
    run(host.url, out, "--show-prompts")
    assert f"1. {PROMPTS[0]}" in table(out)


def test_flags_are_asked_for_where_there_is_no_page(host: ScriptedHost) -> None:
    host.paths["/sdapi/v1/cmd-flags"] = {
        "opt_sdp_attention": "True",
        "no_half": True,
        "xformers": "False",
        "ckpt": "/x/y",
    }
    assert facts(Host(host.url))["attention and memory"] == "--no-half, --opt-sdp-attention"


def test_the_page_is_whole_without_a_network(host: ScriptedHost, out: Path) -> None:
    run(host.url, out, "--batch", "2")
    shown = page(out)
    assert "&lt;b&gt;stormy&lt;/b&gt;" in shown
    linked = re.findall(r'(?:src|href)="([^"]+)"', shown)
    assert len(linked) == 2 * len(ARMS) * len(PROMPTS) * 2
    assert all((out / name).exists() for name in linked)
    assert not re.search(r"https?://|url\(|@import|fetch\(", shown)
    assert "seed 2" in shown  # of a batch of two that began with 1


def test_a_sheet_per_prompt(host: ScriptedHost, out: Path) -> None:
    host.behave = lambda payload: OUT_OF_MEMORY if payload["prompt"] == PROMPTS[1] else None
    run(host.url, out, "--sizes", "512x256", "--arms", "direct", "HiDiffusion", "--seeds", "1", "2")
    first, second = sorted((out / "sheets").iterdir())
    assert (first.name, second.name) == ("512x256-001.jpg", "512x256-002.jpg")
    with Image.open(first) as one, Image.open(second) as two:
        assert one.size == two.size == (2 * 384 + 3 * 10, 2 * 28 + 10 + 2 * (192 + 10))
        assert one.getpixel((200, 150))[0] < 60  # type: ignore[index]  # seed 1
        assert 70 < one.getpixel((200, 350))[0] < 90  # type: ignore[index]  # seed 2
        assert min(two.getpixel((200, 150))) > 200  # type: ignore[type-var]  # missing
    run(host.url, out, "--sizes", "256", "--arms", "direct")
    assert [sheet.name for sheet in sorted((out / "sheets").iterdir())] == ["256x256-001.jpg", "256x256-002.jpg"]


def test_prompts_on_sheets_of_an_old_pillow(host: ScriptedHost, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def before_10_1() -> Any:
        return ImageFont.load_default_imagefont()

    monkeypatch.setattr(ImageFont, "load_default", before_10_1)
    host.behave = lambda payload: OUT_OF_MEMORY
    (out.parent / "russian.txt").write_text("рыжая лиса", encoding="utf-8")
    job = ["--arms", "direct", "--prompts", str(out.parent / "russian.txt"), "--show-prompts"]
    assert run(host.url, out, *job) == 1
    with Image.open(out / "sheets" / "128x128-001.jpg") as sheet:
        letters = sheet.convert("L").point(lambda value: 255 * (value < 128)).getbbox()
    assert letters[3] > 30  # type: ignore[index]  # the title and the arm


def test_a_host_that_loads_its_model_late(host: ScriptedHost, out: Path) -> None:
    loaded = host.plan
    host.plan = {"refused": "no model is in memory yet"}

    def behave(payload: dict[str, Any]) -> None:
        host.plan = loaded

    host.behave = behave
    assert run(host.url, out, "--arms", "direct") == 0
    assert host.asked[0] == LOADS_A_MODEL


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        (
            {"plan": {"refused": "this model has no UNet"}},
            [],
            "cannot be used with the checkpoint that is loaded: this",
        ),
        ({"paths": {}}, [], "has no API (HTTP 404): start it with --api"),
        ({}, ["--upscaler", "none such"], "knows no upscaler 'none such'; it has Lanczos"),
        ({}, ["--prompts", "none.txt"], f"There is no file {Path('none.txt').absolute()}."),
        ({}, ["--prompts", str(REPOSITORY / "docs" / "page.png")], "page.png cannot be read: save it as UTF-8"),
        ({}, ["--html", "--out", "none"], "none holds no comparison"),
        ({}, ["--url", "http://127.0.0.1:9"], "No WebUI answers at http://127.0.0.1:9"),
    ],
)
def test_why_it_cannot_begin(
    host: ScriptedHost,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    words: list[str],
    said: str,
) -> None:
    vars(host).update(change)
    assert run(host.url, out, *words) == 2
    assert said in capsys.readouterr().err
    assert all(payload == LOADS_A_MODEL for payload in host.asked)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sizes", "1000x4"], "sides are multiples of 8 pixels"),
        (["--sizes", "big"], "'big' is no size; 1024 and 1024x768 are"),
        (["--sizes", "1001"], "sides are multiples of 8 pixels"),
        (["--native-size", "500"], "sides are multiples of 8 pixels"),
        (["--arms", "best"], "there is no arm 'best'; there are direct, HiDiffusion"),
        (["--seeds", "-1"], "'-1' is no whole number from 0 on"),
        (["--steps", "0"], "it has to be 1 at least"),
        (["--url", "http://me:secret@host"], "give user and password with --auth"),
    ],
)
def test_arguments_that_are_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert said in capsys.readouterr().err


def test_interrupted_by_the_user(
    host: ScriptedHost, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    post = Host.post

    def interrupted(self: Host, path: str, payload: Any, *rest: Any) -> Any:
        if path.endswith("txt2img") and len(host.asked) == 1:
            raise KeyboardInterrupt
        return post(self, path, payload, *rest)

    monkeypatch.setattr(Host, "post", interrupted)
    assert run(host.url, out, "--arms", "direct") == 1
    assert host.interrupted == 1
    assert "Stopped. 1 of 2 are still to be made." in capsys.readouterr().out
    assert figures(out)["direct"].there == 1


def test_interrupted_before_it_begins(
    host: ScriptedHost, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Host, "get", interrupted)
    assert run(host.url, out) == 2
    assert capsys.readouterr().err == "Stopped.\n"


def test_what_will_be_made_is_said_first(host: ScriptedHost, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = ["--arms", "direct", "hires", "--batch", "2", "--seeds", "1", "3", "--sizes", "256x128"]
    host.behave = lambda payload: OUT_OF_MEMORY if payload["prompt"] == PROMPTS[1] else None
    run(host.url, out, *job)
    said = capsys.readouterr().out
    assert said.startswith(f"SD1.5 ({CHECKPOINT}.safetensors), made for sides of 64 pixels; if not, add --native-size.")
    assert "\n16 pictures: 2 prompts, 2 ways, 4 seeds, 256x128.\nHow long it takes" in said
    run(host.url, out, *job)
    assert "256x128. 8 are there already.\nHow long it takes" in capsys.readouterr().out
    host.behave = lambda payload: None
    run(host.url, out, *job)
    capsys.readouterr()
    run(host.url, out, *job)
    said = capsys.readouterr().out
    assert "256x128. 16 are there already.\n" in said
    assert "How long it takes" not in said


def test_on_a_terminal_the_clock_goes_on_while_a_picture_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bar:
        refreshed = threading.Event()

        def refresh(self) -> None:
            self.refreshed.set()

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with ticking(Bar()):
        assert Bar.refreshed.wait(10)


def test_a_password_is_sent_and_never_kept(host: ScriptedHost, out: Path) -> None:
    run(host.url, out, "--arms", "direct", "--auth", "me:hunter2")
    assert not [file for file in out.rglob("*") if file.is_file() and b"hunter2" in file.read_bytes()]


def test_the_list_that_ships() -> None:
    shipped = read(SHIPPED)
    assert len(shipped) == len(set(shipped)) == 24


def test_a_comparison_is_read_back_as_it_was_written(host: ScriptedHost, out: Path) -> None:
    run(host.url, out)
    told = Comparison.load(out / "comparison.json")
    told.save(out / "again.json")
    assert (out / "again.json").read_text() == (out / "comparison.json").read_text()
    assert json.loads((out / "again.json").read_text())["asked"]["sizes"] == [{"width": 128, "height": 128}]
