"""The page in a real browser: it fits phones and screens, is readable in the dark, prints, and asks
nothing of anybody.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api",
    reason="playwright is not installed: the page is not looked at in a browser",
)
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        try:
            path = str(CHROMIUM) if CHROMIUM.exists() else None
            opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no browser is installed: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


def opened(
    browser: Any, tiny_run: Path, width: int = 1280, **options: Any
) -> tuple[Any, list[str]]:
    """Open the report; return it and everything that it asked for or complained about."""
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    heard: list[str] = []
    page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: heard.append(request.url))
    page.goto((tiny_run / "report" / "index.html").as_uri())
    return page, heard


@pytest.mark.parametrize("width", [320, 360, 768, 1280, 2560])
def test_nothing_is_wider_than_the_screen(browser: Any, tiny_run: Path, width: int) -> None:
    page, _ = opened(browser, tiny_run, width)
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_no_request_but_for_the_page_and_no_complaint(browser: Any, tiny_run: Path) -> None:
    page, heard = opened(browser, tiny_run)
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    page.wait_for_load_state("networkidle")
    assert heard == [(tiny_run / "report" / "index.html").as_uri()]
    page.close()


def test_a_footnote_opens_its_place_in_the_appendix(browser: Any, tiny_run: Path) -> None:
    page, _ = opened(browser, tiny_run)
    link = page.locator("a.o").first
    target = page.locator(str(link.get_attribute("href")))
    assert not target.is_visible()
    link.click()
    assert target.is_visible()
    page.close()


CONTRAST = """() => {
  const channel = c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const behind = node => { for (; node; node = node.parentElement) {
    const color = parse(getComputedStyle(node).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color; } };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, style = getComputedStyle(node);
    if (!walker.currentNode.data.trim() || !node.getClientRects().length) continue;
    const color = node.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [a, b] = [light(parse(color)), light(behind(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), node.className.baseVal ?? node.className, walker.currentNode.data.trim().slice(0, 30)]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 3);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read_in_the_light_and_in_the_dark(
    browser: Any, tiny_run: Path, scheme: str
) -> None:
    """WCAG AA: a contrast of 4.5 for all text, words of charts too."""
    page, _ = opened(browser, tiny_run, color_scheme=scheme)
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")
    worst = page.evaluate(CONTRAST)
    assert worst[0][0] >= 4.5, worst
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) > 380) == (scheme == "light")
    page.close()


def test_it_prints_on_paper_with_whole_tables(browser: Any, tiny_run: Path) -> None:
    # A4 without its margins, at 96 pixels an inch.
    page, _ = opened(browser, tiny_run, width=int((210 - 32) / 25.4 * 96))
    page.emulate_media(media="print")
    cut = page.evaluate(
        "[...document.querySelectorAll('table, svg, .shown > *, .origins, pre')].filter(n =>"
        " n.getClientRects().length && n.getBoundingClientRect().right >"
        " document.body.getBoundingClientRect().right + 1).map(n => n.outerHTML.slice(0, 80))"
    )
    assert cut == []
    clipped = page.evaluate(
        "[...document.querySelectorAll('.wide')].filter(n => n.scrollWidth > n.clientWidth +"
        " 1).length"
    )
    assert clipped == 0
    data = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", data)) > 1
    page.close()
