"""Pictures of the chat page and of the report for the README. Reads runs/starter; writes
docs/images/*.png.

`python -m benchmarks.screens [RUN]`, part of `make docs`. Needs chromium; the model answers with a
fixed seed.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

IMAGES = Path("docs/images")
# The first two are for machines without user namespaces or a GPU; the others keep the browser from
# asking hosts of its own.
FLAGS = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync".split()
)
DESKTOP = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}
PHONE = {
    "viewport": {"width": 390, "height": 780},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
# A seed is part of the picture: the same run gives the same one.
SETTINGS = {"seed": 6, "max_tokens": 96}
COLOURS = 128


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/starter")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("screens: needs chromium")
    from playwright.sync_api import sync_playwright

    if not (root / "recipe.lock.toml").is_file():
        sys.exit(f"screens: {root} is not a run; `make demo` makes one")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        chat(browser, root)
        report(browser, root)
        browser.close()


def chat(browser: Any, root: Path) -> None:
    """The chat on a desktop, with the probabilities of its last answer, and on a phone."""
    from groundup.serve.server import open_model, running

    with running(open_model(root)) as url:
        page = opened(browser, url, DESKTOP)
        page.check("#probabilities")
        for number in range(2):
            say(page, number)
        tokens = page.locator(".t")
        if tokens.count():
            tokens.nth(tokens.count() // 3).click()
        save(page, "chat-desktop-light")
        page = opened(browser, url, PHONE | {"color_scheme": "dark"})
        say(page, 0)
        say(page, 1)
        page.evaluate("document.activeElement.blur()")
        save(page, "chat-phone-dark")


def report(browser: Any, root: Path) -> None:
    """The top of the report, wide and narrow."""
    path = root / "report" / "index.html"
    if not path.is_file():
        print(f"screens: {path} is not there; the report is left out")
        return
    for name, options in (("report-desktop", DESKTOP), ("report-phone", PHONE)):
        page = browser.new_context(**options).new_page()
        page.goto(path.resolve().as_uri())
        save(page, name)


def opened(browser: Any, url: str, options: dict[str, Any]) -> Any:
    """The page with its beginnings, and settings that draw the same text each time."""
    context = browser.new_context(**options)
    context.add_init_script(
        f"localStorage.setItem('groundup.settings', {json.dumps(json.dumps(SETTINGS))})"
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#run:not(:empty)", state="attached")
    return page


def say(page: Any, number: int) -> None:
    """Take the beginning of that number: as a message, or, where the model was not tuned, as a text
    to go on with.
    """
    button = page.locator("#prompts button").nth(number)
    if page.evaluate("document.body.dataset.mode") == "chat":
        page.fill("#message", button.locator("span").text_content())
        page.click("#send")
    elif number == 0:
        button.click()
    else:
        page.click("#send")
    page.wait_for_selector("body:not(.busy)")


def save(page: Any, name: str) -> None:
    """Write the picture with few colors: a page has few, and a README is loaded often."""
    from PIL import Image

    page.evaluate("document.fonts.ready")
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    path = IMAGES / f"{name}.png"
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
