"""The page RUN/look: texts that training would read and those it would not, and only as text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from lxml import html
from tests.helpers.harmless import assert_harmless
from tests.helpers.raw import TEXTS, write_books

from groundup.artifacts.corpus import kept_documents
from groundup.commands.forget import forget
from groundup.flow import run_flow
from groundup.recipe import load_recipe
from groundup.report.look import PAGE, name_endings, write_look

CHROMIUM = Path("/usr/bin/chromium")
OPEN_ALL = "for (const details of document.querySelectorAll('details')) details.open = true"
HOSTILE = "</div><script>alert(1)</script><img src=x onerror=alert(1)> \u202e\n\n"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("look")
    write_books(folder / "books", count=3)
    (folder / "notes").mkdir()
    prose = TEXTS[1][3][1] + TEXTS[1][7][1] + TEXTS[1][8][1]
    (folder / "notes" / "evil.txt").write_text(HOSTILE + prose)
    (folder / "notes" / "copy.txt").write_text(HOSTILE + prose)
    (folder / "notes" / "short.TXT").write_text(
        "Write to me@example.com, password: tr0ub4dor&3\n12 Main Street\nSpringfield, IL 62701"
    )
    (folder / "notes" / "picture").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (folder / "recipe.toml").write_text(
        '[[source]]\npath = "books"\nkind = "books"\n'
        '[[source]]\npath = "notes"\nkind = "text"\nmost_dropped = 1\n'
    )
    run_flow(load_recipe(folder / "recipe.toml"), folder / "run", until="refine", workers=1)
    yield folder / "recipe.toml"


@pytest.fixture
def page(recipe: Path) -> Any:
    return html.fromstring((recipe.parent / "run" / PAGE).read_bytes())


def shown(page: Any, side: str) -> set[str]:
    path = f"//section[@id='texts']/details[contains(summary, '{side}')]//article//code"
    return {node.text_content() for node in page.xpath(path)}


def test_kept_and_dropped_texts_are_those_of_the_run(recipe: Path, page: Any) -> None:
    root = recipe.parent / "run"
    kept = {i for batch in kept_documents(root, ["id"]) for i in batch.column("id").to_pylist()}
    assert shown(page, "kept") == kept and len(kept) == 4
    dropped = {
        i
        for stage in ("collect", "refine")
        for i in pq.read_table(root / stage / "dropped")["id"].to_pylist()
    }
    assert shown(page, "dropped") == dropped and len(dropped) == 3


def test_the_page_says_what_became_of_files_and_why(page: Any) -> None:
    rows = {
        row.xpath("string(th)").split()[0]: [cell.text_content() for cell in row.xpath("td")]
        for row in page.xpath("//section[@id='files']//tbody/tr")
    }
    assert rows == {".txt": ["6", "6", "4"], "none": ["1", "0", "0"]}
    reasons = page.xpath("string(//section[@id='dropped'])")
    assert "exact duplicate" in reasons and "unsupported format" in reasons
    assert "evil.txt" in page.xpath("string(//section[@id='duplicates'])")
    cleaning = page.xpath("string(//section[@id='cleaning'])")
    assert all(name in cleaning for name in ("e-mail addresses", "secrets", "signatures"))


def test_nothing_but_our_own_script_can_run(page: Any) -> None:
    """Its hash is in the policy; a hostile text is text."""
    (script,) = page.xpath("//script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    (policy,) = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert f"script-src 'sha256-{digest}';" in policy and "default-src 'none'" in policy
    assert "<script>alert(1)</script>" in page.xpath("string(//section[@id='texts'])")
    script.getparent().remove(script)
    assert_harmless(page)


@pytest.mark.parametrize("width", [320, 1280])
def test_the_search_shows_the_texts_with_the_words(recipe: Path, width: int) -> None:
    """In a real browser: the policy lets the script run, and the page requests nothing else."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("no browser is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, log = browser.new_page(viewport={"width": width, "height": 900}), list[str]()
        page.on("console", lambda message: log.append(message.text))
        page.on("request", lambda request: log.append(request.url))
        page.goto((recipe.parent / "run" / PAGE).as_uri())
        page.evaluate(OPEN_ALL)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.fill("#search", "ALERT(1)")
        assert page.inner_text("#found") == "2 of 7 texts"
        assert page.locator("#texts article:visible").count() == 2
        page.fill("#search", "")
        assert page.locator("#texts article:visible").count() == 7
        assert log == [(recipe.parent / "run" / PAGE).as_uri()]
        browser.close()


def test_a_fresh_page_is_not_written_again(recipe: Path) -> None:
    path = recipe.parent / "run" / PAGE
    before = path.stat()
    assert write_look(recipe.parent / "run", "recipe", load_recipe(recipe).seed) == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    write_look(recipe.parent / "run", "recipe", 1, ["A sample of <b>two</b> files."])
    assert "A sample of &lt;b&gt;two" in path.read_text()


def test_the_endings_of_names() -> None:
    import pyarrow as pa

    names = ["a/B.TXT", "x.zip!/y.json.gz", "dir.d/none", "v1.2", ".hidden", "a.b-c"]
    assert name_endings(pa.array(names)).to_pylist() == [".txt", ".json.gz", "", "", ".hidden", ""]


def test_forget_deletes_the_page(recipe: Path) -> None:
    """It quotes documents. The last test, since it changes the run."""
    root = recipe.parent / "run"
    evil = next(i for i in shown(html.fromstring((root / PAGE).read_bytes()), "kept"))
    forget(root, [evil], workers=1)
    assert not (root / PAGE).exists()
