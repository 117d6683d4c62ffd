"""The page of ``spectrim app`` in headless Chromium: ``make app-check``. It needs Gradio and a browser.

Uploads a sound, moves the slider and the playhead, records, looks at labels, sounds and stages; in light and dark, on
a wide screen and on a phone's. Fails on an error in the console, on what overflows the screen, and on a request that
leaves this machine.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import soundfile
from playwright.sync_api import Browser, Page, sync_playwright

from spectrim.assets import DEMO_CLIPS

WAIT = 90_000
"""Milliseconds until something must have happened."""

MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")

PLAYHEAD_MOVED = """() => {
  const head = document.querySelector("svg .head"), at = document.getElementById("kept").currentTime;
  return head.style.visibility === "visible" && head.getAttribute("x1") > 100 && at > 0.2 && at < 0.9;
}"""

SCREENS = {"wide": (1280, 900), "phone": (390, 844)}


@contextmanager
def server() -> Iterator[str]:
    """The address of a page that is served; Ctrl-C must end it with 130."""
    command = [sys.executable, "-m", "spectrim", "app", "--port", "0", "--keep-rate", "0.5", "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                    break
            else:
                raise AssertionError("the server did not start")
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)
            last = process.stderr.read()
            assert process.wait(30) == 130, last
            assert "Traceback" not in last, last


def labels(page: Page) -> list[str]:
    """Rows of the table of labels, MACs and milliseconds."""
    return page.locator(".spectrim-table tbody tr").all_inner_texts()


def set_rate(page: Page, rate: str) -> None:
    """Move the slider, and wait until the numbers are others."""
    before = page.locator(".spectrim-table").inner_text()
    slider = page.get_by_label("number input for Share of the patches kept")
    slider.fill(rate)
    slider.press("Enter")
    page.wait_for_function(
        "before => (document.querySelector('.spectrim-table') || {innerText: before}).innerText !== before",
        arg=before,
        timeout=WAIT,
    )


def visit(browser: Browser, address: str, theme: str, screen: str, folder: Path, files: dict[str, Path]) -> None:
    """One visit; everything that must hold is asserted."""
    width, height = SCREENS[screen]
    context = browser.new_context(
        color_scheme="dark" if theme == "dark" else "light", viewport={"width": width, "height": height}
    )
    page = context.new_page()
    page.set_default_timeout(WAIT)
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address, timeout=WAIT)
    upload = page.locator("input[type=file]").first
    upload.wait_for(state="attached", timeout=WAIT)
    upload.set_input_files(files["word"])
    page.locator(".spectrim-table").wait_for(timeout=WAIT)
    first = labels(page)
    assert any("MACs" in row for row in first) and any("ms, model alone" in row for row in first), first
    frame = page.frame_locator(".spectrim-page")
    assert "of 64 patches kept" in frame.locator("caption").inner_text()
    assert frame.locator("audio").count() == 2
    assert frame.locator("#kept").evaluate("player => player.src.length") > 1000
    set_rate(page, "0.2")
    second = labels(page)
    assert [row.split()[1:] for row in first] != [row.split()[1:] for row in second]
    frame.locator("button[data-state]").first.click()
    assert "64 of 64 patches kept" in frame.locator("caption").inner_text()
    frame.locator("button[data-state]").last.click()
    frame.locator("svg[data-start]").click()
    page.frames[-1].wait_for_function(PLAYHEAD_MOVED)
    for where in (page, page.frames[-1]):
        wide, seen = where.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= seen, f"{screen}: {wide} pixels wide on a screen of {seen}"
    time.sleep(1)
    page.screenshot(path=folder / f"{theme}-{screen}.png", full_page=True)
    assert complaints == [], complaints
    outside = [url for url in asked if urlsplit(url).hostname not in (None, "", "127.0.0.1")]
    assert outside == [], outside
    for name in ("silent", "text"):
        page.get_by_label("Clear").first.click()
        page.locator(".spectrim-table, .spectrim-error").first.wait_for(state="detached")
        page.locator("input[type=file]").first.set_input_files(files[name])
        said = page.locator(".spectrim-error")
        said.wait_for(timeout=WAIT)
        tell(f"{theme} {screen}: {said.inner_text()}")
        assert page.locator(".spectrim-table").count() == 0
    page.get_by_label("Clear").first.click()
    page.locator(".spectrim-error").wait_for(state="detached")
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Record").first.click()
    time.sleep(2)
    page.get_by_role("button", name="Stop").first.click()
    page.locator(".spectrim-table").wait_for()
    context.close()


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--output", type=Path, default=Path("build/app-check"), help="folder for screenshots")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        files = {
            "word": sorted(DEMO_CLIPS.glob("*.flac"))[0],
            "silent": Path(name, "silent.wav"),
            "text": Path(name, "text.wav"),
        }
        soundfile.write(files["silent"], np.zeros(16000), 16000)
        files["text"].write_text("no sound at all\n" * 100)
        with sync_playwright() as playwright, server() as address:
            browser = playwright.chromium.launch(executable_path=options.chromium, args=[*MICROPHONE, "--no-sandbox"])
            for theme in ("light", "dark"):
                for screen in SCREENS:
                    visit(browser, address, theme, screen, options.output, files)
                    tell(f"{theme} {screen}: fine")
            browser.close()


if __name__ == "__main__":
    main()
