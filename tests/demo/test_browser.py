"""The demo in a real browser: headless Chromium, driven by playwright."""

import os
import re
import shutil
from collections.abc import Iterator

import pytest
from PIL import Image

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser test needs playwright: pip install playwright"
)
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402 - after the check for playwright

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = (
    "--no-sandbox",  # Chromium refuses to start as root with it
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
GRID = 16

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="the browser test needs Chromium, on the path or named by CHROMIUM"
)


@pytest.fixture(scope="module")
def page(server) -> Iterator[Page]:
    """The demo, opened once; a request to another machine or an error of its scripts fails the test."""
    wrong = []
    expect.set_options(timeout=20_000)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(20_000)
        page.on("request", lambda r: r.url.startswith((server, "data:", "blob:")) or wrong.append(r.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(server)
        yield page
        browser.close()
    assert not wrong


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def set_number(page: Page, label: str, value: int) -> None:
    box = page.get_by_label(f"number input for {label}").first
    box.fill(str(value))
    box.press("Tab")


def click_cell(page: Page, elem_id: str, row: int, column: int, rows: int, columns: int) -> None:
    """Clicks the middle of a cell of a picture."""
    picture = page.locator(f"#{elem_id} img")
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] * (column + 0.5) / columns, "y": box["height"] * (row + 0.5) / rows})


def expect_message(page: Page, text: str) -> None:
    """A message appears, and is closed again."""
    expect(page.get_by_test_id("toast-body").filter(has_text=text)).to_be_visible()
    page.get_by_test_id("toast-close").first.click()


def test_a_prompt_is_drawn_and_its_pictures_have_scores(page):
    set_number(page, "Candidates drawn", 2)
    page.locator("#draw-prompt textarea").fill("a lion on a blue background")
    page.locator("#draw-button").click()
    expect(page.locator("#draw-about")).to_contain_text("CLIP score")
    pictures = page.locator("#draw-gallery img")
    expect(pictures).to_have_count(2)
    scores = [float(text) for text in page.locator("#draw-gallery .caption-label").all_inner_texts()]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    assert pictures.first.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [64, 64]

    expect(page.locator("#draw-about")).to_contain_text("Picture 1 of 2")
    pictures.last.click()
    expect(page.locator("#draw-about")).to_contain_text("Picture 2 of 2")
    seed = re.search(r"seed (\d+)", page.locator("#draw-about").inner_text()).group(1)
    expect(page.locator("#draw-lines")).to_contain_text(f"seed={seed}")


def test_the_drawn_picture_is_completed(page):
    open_tab(page, "Complete")
    page.locator("button:visible", has_text="Take the drawn picture").click()
    expect(page.locator("#complete-given img")).to_be_visible()
    page.locator("#complete-prompt textarea").fill("a lion on a blue background")
    page.get_by_label("number input for Candidates drawn").last.fill("2")
    page.locator("#complete-button").click()
    expect(page.locator("#complete-gallery img")).to_have_count(2)
    expect(page.locator("#complete-lines")).to_contain_text("prefix_rows=8")


def test_a_code_clicked_in_the_codebook_is_painted_into_a_grid(page):
    open_tab(page, "Codebook")
    number = page.locator("#codebook-code input")
    expect(page.locator("#codebook-canvas img")).to_be_visible()
    before = number.input_value()
    click_cell(page, "codebook-mosaic", row=40, column=16, rows=64, columns=32)
    expect(number).not_to_have_value(before)
    code = number.input_value()
    click_cell(page, "codebook-canvas", row=2, column=5, rows=GRID, columns=GRID)
    expect(page.locator("#codebook-note")).to_contain_text(f"Code {code} in row 3, column 6, where code {before} was")

    page.get_by_label("choose the code there").click()
    click_cell(page, "codebook-canvas", row=0, column=0, rows=GRID, columns=GRID)
    expect(number).to_have_value(before)
    click_cell(page, "codebook-canvas", row=2, column=5, rows=GRID, columns=GRID)
    expect(number).to_have_value(code)


def test_an_uploaded_picture_is_reconstructed(page, tmp_path):
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "gradient.png")
    open_tab(page, "Reconstruct")
    page.locator("#reconstruct-upload input[type=file]").set_input_files(tmp_path / "gradient.png")
    expect(page.locator("#reconstruct-about")).to_contain_text("PSNR")
    expect(page.locator("#reconstruct-slider img").first).to_be_visible()


def test_a_hostile_upload_gives_a_message(page, tmp_path):
    Image.new("1", (6000, 6000)).save(tmp_path / "bomb.png")
    open_tab(page, "Reconstruct")
    page.locator("#reconstruct-upload").get_by_label("Remove Image").click()
    page.locator("#reconstruct-upload input[type=file]").set_input_files(tmp_path / "bomb.png")
    expect_message(page, "above the limit of 20,000,000")


def test_a_hostile_prompt_gives_a_message_and_runs_nothing(page):
    open_tab(page, "Draw")
    prompt = "<img src=x onerror=\"document.title='owned'\"> " + "lion " * 40
    page.locator("#draw-prompt textarea").fill(prompt)
    page.locator("#draw-button").click()
    expect_message(page, "tokens, the limit is 32")
    assert page.title() == "Mosaics"
    assert page.locator("img[src=x]").count() == 0


def test_a_drawing_can_be_stopped(page):
    open_tab(page, "Draw")
    set_number(page, "Candidates drawn", 512)
    page.locator("#draw-prompt textarea").fill("a lion on a blue background")
    page.locator("#draw-button").click()
    expect(page.locator("#draw-gallery")).to_contain_text("Drawing 512 candidates")
    page.locator("#draw-stop").click()
    expect_message(page, "topped")


def test_a_visitor_who_leaves_stops_drawing_for_the_next(page, server):
    leaving = page.context.browser.new_page()
    leaving.goto(server)
    set_number(leaving, "Candidates drawn", 512)
    leaving.locator("#draw-prompt textarea").fill("a lion on a blue background")
    leaving.locator("#draw-button").click()
    expect(leaving.locator("#draw-gallery")).to_contain_text("Drawing 512 candidates")
    leaving.close()
    set_number(page, "Candidates drawn", 1)
    page.locator("#draw-prompt textarea").fill("a fox")
    page.locator("#draw-button").click()
    expect(page.locator("#draw-lines")).to_contain_text("'a fox'")


def test_on_a_phone_every_tab_fits_the_screen(page):
    page.set_viewport_size({"width": 390, "height": 844})
    for name in ("Draw", "Complete", "Codebook", "Reconstruct"):
        open_tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
