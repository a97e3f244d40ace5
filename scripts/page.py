"""The page in a browser without a head: a search from start to end, stop, a second seed, the
keyboard, 360 pixels, dark; a picture of each.

    scripts/page.py URL FOLDER [BROWSER]

URL is that of a server without a key. BROWSER is a Chromium (default: that of the system). Needs
Playwright for Python. Exit codes: 0 all went well, 1 something did not.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

URL, FOLDER = sys.argv[1], Path(sys.argv[2])
BROWSER = sys.argv[3] if len(sys.argv) > 3 else shutil.which("chromium")
MINUTE = 60_000


def fill(page, samples, iterations, tokens):
    page.locator("#prompt").fill("Write one sentence reviewing a movie about a lost dog.")
    for name, value in (("samples", samples), ("iterations", iterations), ("tokens", tokens)):
        page.locator(f"#{name}").fill(str(value))


def done(page):
    expect(page.locator("#start")).to_be_enabled(timeout=3 * MINUTE)
    expect(page.locator("#error")).to_be_hidden()
    return page.locator("#winner").inner_text()


def picture(page, name):
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=FOLDER / name)


with sync_playwright() as playwright:
    FOLDER.mkdir(parents=True, exist_ok=True)
    browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1000, "height": 1300}, color_scheme="light")
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    outside = []
    page.on("request", lambda r: outside.append(r.url) if not r.url.startswith(URL) else None)
    page.goto(URL)
    expect(page.locator("#preset option")).not_to_have_count(0)

    fill(page, 8, 4, 24)
    page.locator("#start").click()
    first = done(page)
    assert first and first != "…", first
    assert page.locator("#rows tr").count() > 3
    expect(page.locator("#chart polyline")).not_to_have_count(0)
    expect(page.locator("#plain")).not_to_have_text("…")
    page.locator("details summary").click()
    picture(page, "page.png")

    page.locator("#again").click()
    second = done(page)
    assert page.locator("#seed").input_value() == "1"
    page.goto("about:blank")
    page.goto(f"{URL}/#prompt=x&seed=0")
    assert page.locator("#seed").input_value() == "0"

    # The keyboard: begin, and answer now.
    fill(page, 8, 200, 24)
    page.locator("#prompt").press("Control+Enter")
    expect(page.locator("#stop")).to_be_enabled()
    expect(page.locator("#status")).to_contain_text("Iteration", timeout=MINUTE)
    page.keyboard.press("Escape")
    assert done(page)
    expect(page.locator("#status")).to_contain_text("interrupted")

    # A conversation.
    fill(page, 4, 1, 16)
    page.locator("#message").fill("And about a cat?")
    page.locator("#send").click()
    expect(page.locator("#send")).to_be_enabled(timeout=MINUTE)
    expect(page.locator(".turn")).to_have_count(2)

    page.set_viewport_size({"width": 360, "height": 1000})
    page.emulate_media(color_scheme="dark")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, f"{width} pixels wide"
    picture(page, "narrow-dark.png")
    browser.close()
    assert not problems, problems
    outside = [url for url in outside if not url.startswith(("about:", "blob:"))]
    assert not outside, outside
    print(f"first: {first!r}\nagain: {second!r}\npictures in {FOLDER}")
