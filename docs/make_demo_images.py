#!/usr/bin/env python
"""Takes the picture of the demo's documentation in a headless browser: python docs/make_demo_images.py.

Needs `pip install "mosaics[demo]" playwright` and Chromium, on the path or named by the variable CHROMIUM.
"""

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from mosaics.demo import launch

PICTURE = Path(__file__).parent / "pages" / "images" / "demo.png"
PROMPT = "a lion on a blue background"
SIZE = {"width": 1180, "height": 900}


def take(address: str, chromium: str) -> bytes:
    """The page after a drawing, as PNG."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=SIZE)
        page.goto(address)
        page.locator("#draw-prompt textarea").fill(PROMPT)
        page.locator("#draw-button").click()
        expect(page.locator("#draw-about")).to_contain_text("CLIP score", timeout=120_000)
        page.wait_for_timeout(1000)  # for the pictures to be painted
        picture = page.screenshot()
        browser.close()
    return picture


if __name__ == "__main__":
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    chromium = os.environ.get("CHROMIUM") or next(found, None)
    if chromium is None:
        sys.exit("make_demo_images.py: there is no Chromium on the path; name one by the variable CHROMIUM.")
    demo = launch(block=False)
    taken = take(demo.local_url, chromium)
    demo.close()
    Image.open(io.BytesIO(taken)).convert("RGB").save(PICTURE, optimize=True)
    print(PICTURE)
