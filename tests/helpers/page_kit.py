"""A browser for tests of the page; script errors and policy violations fail the test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# For machines without user namespaces or a GPU, and against requests of the browser itself.
FLAGS = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync".split()
)
DESKTOP, PHONE, WIDE = (1280, 800), (360, 740), (2560, 1300)
# Milliseconds; a busy machine may need them.
PATIENCE = 30_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium driven by playwright; closed with the module, since it keeps an event loop."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page in a new context; fail if a script failed or another host was contacted."""
    contexts, wrong = [], []

    def open_page(
        url: str, size: tuple[int, int] = DESKTOP, ready: bool = True, **options: Any
    ) -> Any:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)

        def check_request(request: Any) -> None:
            if not _same_host(request.url, url):
                wrong.append(request.url)

        def refuse_dialog(dialog: Any) -> None:
            wrong.append(f"executed: {dialog.message}")
            dialog.dismiss()

        def check_console(message: Any) -> None:
            if not _forgiven(message.text):
                wrong.append(f"console: {message.text}")

        context.on("request", check_request)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"failed: {error}"))
        page.on("dialog", refuse_dialog)
        page.on("console", check_console)
        page.goto(url)
        if ready:
            known(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def _same_host(asked: str, url: str) -> bool:
    return urlsplit(asked).netloc == urlsplit(url).netloc or asked.startswith("data:")


# Chromium logs each status above 399 and each broken connection, which some tests cause on purpose.
def _forgiven(text: str) -> bool:
    return text.startswith("Failed to load resource")


def known(page: Any) -> None:
    """Wait until the page has loaded /info; its policy forbids the eval of `wait_for_function`."""
    page.wait_for_selector("#run:not(:empty)", state="attached")


def say(page: Any, text: str) -> None:
    """Send a message and wait for the end of its answer."""
    page.fill("#message", text)
    page.press("#message", "Enter")
    ended(page)


def ended(page: Any) -> None:
    """Wait until no generation is running."""
    page.wait_for_selector("body:not(.busy)")


def answer(page: Any) -> str:
    """Return the text of the last answer."""
    return str(page.locator(".assistant .body").last.text_content())


def overflows(page: Any) -> int:
    """Return by how many pixels the page is wider than its window."""
    return int(
        page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    )
