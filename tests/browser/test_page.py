"""The panel on the page, in a real browser: opened, read, used, pasted back. Without Chromium these tests skip."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import server

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

REPOSITORY = Path(__file__).resolve().parents[2]
GRADIO_4 = Path(sys.prefix) / "gradio4"
pytestmark = pytest.mark.browser

JAVASCRIPT = (REPOSITORY / "javascript" / "hidiffusion.js").read_text(encoding="utf8")
LOOK_EVERY = int(re.findall(r"LOOK_EVERY = (\d+);", JAVASCRIPT)[0])
"""Milliseconds."""


@pytest.fixture(scope="module", params=["gradio3", "gradio4"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The stand-in with A1111's gradio, and with Forge's."""
    packages = GRADIO_4 if request.param == "gradio4" else None
    if packages and not packages.exists():
        pytest.skip(f"no gradio 4 in {packages}: `python run.py test` installs it")
    with server.running([REPOSITORY], packages=packages) as address:
        yield address


class Panel:
    """One tab's panel on an open page."""

    def __init__(self, page: playwright.Page, tab: str = "txt2img") -> None:
        self.page, self.tab = page, tab
        self.id = f"#script_{tab}_hidiffusion"
        self.plan = page.locator(f"{self.id}_plan .hidiffusion-plan")
        self.mark = page.locator(f"{self.id}_panel .hidiffusion-mark")
        self.ticked = page.locator(f"{self.id}_panel-checkbox input")

    def tick(self) -> None:
        self.page.locator(f"{self.id}_panel-visible-checkbox").click()

    def set(self, elem_id: str, value: object) -> None:
        self.page.fill(f"#{elem_id} input[type=number]", str(value))
        self.page.keyboard.press("Tab")

    def choose(self, elem_id: str, value: str) -> None:
        """Takes a value from a drop-down list."""
        self.page.locator(f"#{elem_id} input").click()
        self.page.locator(f"li[aria-label='{value}']").click()

    def set_size(self, width: int, height: int) -> None:
        self.set(f"{self.tab}_width", width)
        self.set(f"{self.tab}_height", height)

    def looks(self, count: int) -> None:
        """Waits until the page has looked at its fields so often at least: it does that as often as this timer ends."""
        self.page.evaluate(
            f"new Promise((done) => {{ let left = {count + 1}; setInterval(() => --left || done(), {LOOK_EVERY}); }})"
        )

    def says(self, text: str) -> None:
        playwright.expect(self.plan).to_contain_text(text)


@pytest.fixture
def page(tab: playwright.Page, url: str) -> playwright.Page:
    """The page, loaded."""
    tab.set_viewport_size({"width": 1100, "height": 1400})
    tab.goto(url)
    tab.wait_for_selector("#script_txt2img_hidiffusion_panel-visible-checkbox", state="visible")
    return tab


@pytest.fixture
def panel(page: playwright.Page) -> Panel:
    return Panel(page)


def test_closed_it_is_one_line_and_asks_nothing(panel: Panel) -> None:
    asked: list[str] = []
    panel.page.on("request", lambda request: asked.append(request.url))
    panel.mark.wait_for(state="attached")
    panel.looks(4)
    assert panel.plan.is_hidden()
    assert panel.mark.is_hidden()
    assert not [address for address in asked if "hidiffusion/v1" in address]
    assert panel.page.locator(f"{panel.id}_panel").bounding_box()["height"] < 60  # type: ignore[index]


def test_the_plan_follows_the_sliders(panel: Panel) -> None:
    panel.tick()
    panel.says("nothing to do at 512x512: the model was made for 512x512")
    playwright.expect(panel.mark).to_have_text("nothing to do")
    height = panel.plan.bounding_box()["height"]  # type: ignore[index]
    panel.set_size(1024, 768)
    panel.says("RAU-Net until step 8 of 20, MSW-MSA")
    playwright.expect(panel.mark).to_have_text(re.compile("times as fast"))
    assert panel.plan.bounding_box()["height"] == height  # type: ignore[index]  # nothing below it jumps
    assert panel.plan.locator("rect.work").count() == 20
    panel.set("txt2img_steps", 10)
    panel.says("RAU-Net until step 4 of 10, MSW-MSA")
    panel.page.locator(f"{panel.id}_rau_net input").click()
    panel.says("Picture: 1024x768")
    playwright.expect(panel.plan.locator(".text")).to_have_text("MSW-MSA")
    panel.page.get_by_label("ScaleCrafter").and_(panel.page.locator(f"{panel.id}_method input")).click()
    panel.says("re-dilation until step")
    panel.tick()
    playwright.expect(panel.mark).to_be_hidden()


def test_the_plan_follows_the_sampler_and_the_schedule(panel: Panel) -> None:
    panel.tick()
    panel.set_size(1024, 768)
    panel.says("RAU-Net until step 8 of 20, MSW-MSA")
    panel.choose("txt2img_scheduler", "Beta")
    panel.says("RAU-Net until step 15 of 20, MSW-MSA")
    panel.page.locator("#txt2img_sampling input").fill("DPM")  # somebody searches
    panel.looks(2)
    panel.says("RAU-Net until step 15 of 20, MSW-MSA")
    panel.page.locator("li[aria-label='DPM++ 2M SDE']").click()
    panel.choose("txt2img_scheduler", "Automatic")
    panel.says("RAU-Net until step 6 of 20, MSW-MSA")


def test_controls_say_the_presets_value_and_what_has_no_effect(panel: Panel) -> None:
    def note(name: str) -> playwright.Locator:
        return panel.page.locator(f"{panel.id}_{name} .hidiffusion-note")

    def greyed(name: str) -> playwright.Locator:
        return panel.page.locator(f"{panel.id}_{name}.hidiffusion-without-effect")

    panel.tick()
    panel.page.locator(f"{panel.id}_advanced .label-wrap").click()
    panel.set_size(1024, 1024)
    playwright.expect(note("t1")).to_have_text("The preset has 0.4 at 1024x1024.")
    playwright.expect(note("dispersion")).to_have_text("Not used: only with the method ScaleCrafter.")
    playwright.expect(greyed("dispersion")).to_be_visible()
    panel.set("script_txt2img_hidiffusion_t1", 0.6)
    panel.says("RAU-Net until step 12 of 20, MSW-MSA")
    panel.page.get_by_label("ScaleCrafter").and_(panel.page.locator(f"{panel.id}_method input")).click()
    panel.set_size(1536, 1536)
    playwright.expect(note("t1")).to_have_text("The preset has 0.7 at 1536x1536.")
    playwright.expect(greyed("dispersion")).to_have_count(0)
    playwright.expect(note("dispersion")).to_have_text("")
    playwright.expect(greyed("rau_net")).to_be_visible()


def test_the_plan_follows_the_cfg_scale(panel: Panel) -> None:
    panel.tick()
    panel.page.get_by_label("ScaleCrafter").and_(panel.page.locator(f"{panel.id}_method input")).click()
    panel.set_size(1536, 1536)
    panel.says("noise-damped guidance until step")
    panel.set("txt2img_cfg_scale", 1)
    panel.says("no noise-damped guidance because nothing is guided at CFG scale 1")


def test_a_page_that_lacks_controls_has_a_plan(panel: Panel) -> None:
    missing = [f"{panel.id}_t1", f"{panel.id}_advanced", "#txt2img_cfg_scale", "#txt2img_scheduler"]
    for control in missing:
        panel.page.locator(control).evaluate("element => element.remove()")
    panel.tick()
    panel.set_size(1024, 768)
    panel.says("RAU-Net until step 8 of 20, MSW-MSA")
    playwright.expect(panel.mark).to_have_text(re.compile("times as fast"))


def test_both_passes_of_a_hires_job(panel: Panel) -> None:
    panel.tick()
    panel.page.locator("#txt2img_hr-visible-checkbox").click()
    panel.says("Hires pass: 1024x1024")
    panel.set("txt2img_hr_scale", 1.5)
    panel.says("Hires pass: 768x768")
    panel.set("txt2img_hr_resize_x", 1280)
    panel.says("Hires pass: 1280x1280")
    panel.says("First pass: 512x512")


def test_img2img_by_size_and_by_scale(page: playwright.Page, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (320, 256)).save(tmp_path / "picture.png")
    page.locator(".tab-nav button", has_text="img2img").click()
    panel = Panel(page, "img2img")
    panel.tick()
    panel.says("Picture: 512x512")
    page.locator(".tab-nav button", has_text="Resize by").click()
    panel.says("put one in first")
    page.set_input_files("#img2img_image input[type=file]", tmp_path / "picture.png")
    panel.says("Picture: 320x256")
    panel.set("img2img_scale", 4)
    panel.says("Picture: 1280x1024")


def test_generated_pasted_back_and_loaded_anew(panel: Panel) -> None:
    panel.tick()
    panel.set_size(256, 256)
    panel.set("txt2img_steps", 5)
    panel.page.locator(f"{panel.id}_advanced .label-wrap").click()
    panel.set("script_txt2img_hidiffusion_native_size", 128)
    panel.says("RAU-Net until step 2 of 5, MSW-MSA")
    panel.page.click("#txt2img_generate")
    infotext = panel.page.locator("#txt2img_infotext textarea")
    playwright.expect(infotext).to_have_value(re.compile('HiDiffusion: "RAU-Net until step 2 of 5, MSW-MSA"'))
    text = infotext.input_value()
    panel.page.reload()
    panel.page.wait_for_selector("#script_txt2img_hidiffusion_panel-visible-checkbox", state="visible")
    playwright.expect(panel.ticked).not_to_be_checked()
    panel.page.fill("#txt2img_prompt textarea", text)
    panel.page.click("#tab_txt2img #paste")
    playwright.expect(panel.ticked).to_be_checked()
    panel.says("Picture: 256x256")
    panel.says("RAU-Net until step 2 of 5, MSW-MSA")


def test_by_keyboard(panel: Panel) -> None:
    panel.page.locator(f"{panel.id}_panel-visible-checkbox").focus()
    panel.page.keyboard.press("Space")
    panel.says("nothing to do")
    panel.page.locator(f"{panel.id}_advanced .label-wrap").focus()
    panel.page.keyboard.press("Enter")
    playwright.expect(panel.page.locator(f"{panel.id}_t1")).to_be_visible()


def test_a_failing_and_a_refusing_answer_are_told(panel: Panel) -> None:
    panel.tick()
    panel.says("nothing to do")
    panel.page.route("**/hidiffusion/v1/plan*", lambda route: route.abort())
    panel.set("txt2img_width", 1024)
    panel.says("The WebUI does not answer")
    panel.page.unroute("**/hidiffusion/v1/plan*")
    panel.set("txt2img_width", 1032)
    panel.says("Picture: 1032x512")
    refused = '{"detail": "<b>this</b> is a reason"}'
    panel.page.route("**/hidiffusion/v1/plan*", lambda route: route.fulfill(status=422, body=refused))
    panel.set("txt2img_width", 1040)
    panel.says("<b>this</b> is a reason.")
