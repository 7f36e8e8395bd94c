"""Test the report page in a browser: layout, contrast, printing, and that it requests nothing."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from groundup.report.figures import metric_lines
from groundup.report.page import render_page

sync_api = pytest.importorskip(
    "playwright.sync_api",
    reason="playwright is not installed: the page is not tested in a browser",
)
CHROMIUM = Path("/usr/bin/chromium")
OPEN_ALL = "for (const details of document.querySelectorAll('details')) details.open = true"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        try:
            path = str(CHROMIUM) if CHROMIUM.exists() else None
            chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no browser is installed: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


def open_report(
    browser: Any, run: Path, width: int = 1280, **options: Any
) -> tuple[Any, list[str]]:
    """Open the report; return the page and a list of its requests, errors and console messages."""
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    log: list[str] = []
    page.on("console", lambda message: log.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: log.append(str(error)))
    page.on("request", lambda request: log.append(request.url))
    page.goto((run / "report" / "index.html").as_uri())
    return page, log


@pytest.mark.parametrize("width", [320, 360, 768, 1280, 2560])
def test_nothing_is_wider_than_the_viewport(browser: Any, tiny_run: Path, width: int) -> None:
    page, _ = open_report(browser, tiny_run, width)
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_the_page_requests_and_logs_nothing(browser: Any, tiny_run: Path) -> None:
    page, log = open_report(browser, tiny_run)
    page.evaluate(OPEN_ALL)
    page.wait_for_load_state("networkidle")
    assert log == [(tiny_run / "report" / "index.html").as_uri()]
    page.close()


def test_a_footnote_opens_its_place_in_the_appendix(browser: Any, tiny_run: Path) -> None:
    page, _ = open_report(browser, tiny_run)
    link = page.locator("a.o").first
    target = page.locator(str(link.get_attribute("href")))
    assert not target.is_visible()
    link.click()
    assert target.is_visible()
    page.close()


CONTRAST = """() => {
  const channel = c => { c /= 255;
    return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const behind = node => { for (; node; node = node.parentElement) {
    const color = parse(getComputedStyle(node).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color; } };
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, style = getComputedStyle(node);
    if (!walker.currentNode.data.trim() || !node.getClientRects().length) continue;
    const color = node.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [a, b] = [light(parse(color)), light(behind(node))].sort((x, y) => y - x);
    texts.push([(a + 0.05) / (b + 0.05), node.className.baseVal ?? node.className,
      walker.currentNode.data.trim().slice(0, 30)]);
  }
  return texts.sort((x, y) => x[0] - y[0]).slice(0, 3);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_all_text_in_light_and_dark(browser: Any, tiny_run: Path, scheme: str) -> None:
    """WCAG AA asks for a contrast of 4.5, in charts too."""
    page, _ = open_report(browser, tiny_run, color_scheme=scheme)
    page.evaluate(OPEN_ALL)
    worst = page.evaluate(CONTRAST)
    assert worst[0][0] >= 4.5, worst
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) > 380) == (scheme == "light")
    page.close()


def test_print_layout_clips_nothing(browser: Any, tiny_run: Path) -> None:
    # A4 without its margins, at 96 pixels an inch.
    page, _ = open_report(browser, tiny_run, width=int((210 - 32) / 25.4 * 96))
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


def with_sources(report: dict[str, Any], count: int) -> dict[str, Any]:
    """Return a report with copies of its source of books, `count` sources in all."""
    of_books = re.compile(r"(?<=[.@])books(?=$|@)")
    figures, examples = dict(report["figures"]), dict(report["examples"])
    sources, tables = list(report["sources"]), dict(report["distributions"]["sources"])
    for n in range(count - len(sources)):
        name = f"books-{n:02}"
        figures |= {of_books.sub(name, k): v for k, v in figures.items() if of_books.search(k)}
        sources.append({"name": name, "kind": "text", "path": "x", "license": ""})
        tables[name] = tables["books"]
    distributions = report["distributions"] | {"sources": tables}
    changes = {"figures": figures, "sources": sources, "distributions": distributions}
    return report | changes | {"examples": examples}


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_of_47_sources_is_short_until_it_is_opened(
    browser: Any, tiny_run: Path, tmp_path: Path, width: int
) -> None:
    report = with_sources(json.loads((tiny_run / "report" / "report.json").read_text()), 47)
    (tmp_path / "report").mkdir()
    path = tmp_path / "report" / "index.html"
    path.write_text(render_page(report, metric_lines(tiny_run)))
    page, _ = open_report(browser, tmp_path, width)
    height = page.evaluate("document.documentElement.scrollHeight")
    assert height < (6_000 if width == 1280 else 10_000)
    tables = page.locator("section#data table").first.locator("tbody tr")
    assert tables.count() == 10
    more = page.locator("section#data summary", has_text="more sources").first
    more.click()
    assert page.locator("section#data tbody tr:visible").count() == 47
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_the_first_screen_answers_four_questions(browser: Any, tiny_run: Path) -> None:
    page, _ = open_report(browser, tiny_run)
    brief = page.locator("dl.brief")
    assert page.locator("p.lead").is_visible()
    assert brief.locator("dt").all_inner_texts() == [
        "How good it is",
        "What it is made of",
        "What went wrong",
    ]
    box = brief.bounding_box()
    assert box["y"] + box["height"] <= 900
    page.close()
