"""The page in a real browser, with a real server and the tuned model of the tiny run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.page_kit import (
    DESKTOP,
    PHONE,
    WIDE,
    answer,
    ended,
    known,
    overflows,
    say,
)

KEY = "a-key-of-24-characters-x"
Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def tuned(tiny_run: Path) -> Iterator[str]:
    """The URL of a server with the tuned model."""
    from groundup.serve.server import open_model, running

    with running(open_model(tiny_run, "", 4, 8, "cpu", "float32")) as url:
        yield url


@pytest.fixture(scope="module")
def untuned(tiny_run: Path) -> Iterator[str]:
    """The URL of a server with the model before tuning, behind a key."""
    from groundup.serve.server import open_model, running

    with running(open_model(tiny_run, "best", 4, 8, "cpu", "float32"), KEY) as url:
        yield url


@pytest.fixture
def page(visit: Visit, tuned: str) -> Any:
    """The page of the tuned model, with a seed and short answers."""
    page = visit(tuned)
    page.evaluate("localStorage.setItem('groundup.settings', '{\"seed\": 1, \"max_tokens\": 12}')")
    page.reload()
    known(page)
    return page


def bodies(page: Any) -> list[dict[str, Any]]:
    """Return the list that collects the bodies of all later requests."""
    sent: list[dict[str, Any]] = []
    page.on(
        "request",
        lambda request: sent.append(request.post_data_json) if request.method == "POST" else None,
    )
    return sent


def events(page: Any, act: Callable[[], Any]) -> list[dict[str, Any]]:
    """Return the stream events that `act` triggers."""
    page.evaluate("""() => {
      const plain = window.fetch;
      window.fetch = async (...args) => {
        const response = await plain(...args);
        const [first, second] = response.body.tee();
        window.heard = new Response(second).text();
        return new Response(first, response);
      };
    }""")
    act()
    ended(page)
    return [
        json.loads(line[6:])
        for line in page.evaluate("window.heard").split("\n")
        if line.startswith("data: {")
    ]


def test_answer_is_streamed_and_announced_once(page: Any) -> None:
    page.evaluate("""() => {
      const status = document.getElementById('status');
      window.told = [];
      new MutationObserver(() => told.push(status.textContent)).observe(status, {childList: true});
    }""")
    pieces = events(page, lambda: say(page, "Who are you?"))
    said = "".join(
        piece["choices"][0]["delta"].get("content", "") for piece in pieces if piece["choices"]
    )
    assert len(pieces) > 3 and said and answer(page) == said
    told = page.evaluate("told")
    assert told == ["The model is writing.", said[:2000]]
    usage = pieces[-1]["usage"]
    assert f"{usage['completion_tokens']} token" in page.locator(".assistant .acts").inner_text()
    assert page.locator("#used").inner_text().split(" of ")[0] == str(usage["total_tokens"])


def test_each_request_has_the_whole_conversation(page: Any) -> None:
    sent = bodies(page)
    page.click("#open-settings")
    page.fill("#system", "Be brief.")
    page.fill("#max_tokens", "3")  # all of it must fit in a small context
    say(page, "First")
    first = answer(page)
    say(page, "Second")
    turns = [("system", "Be brief."), ("user", "First"), ("assistant", first), ("user", "Second")]
    assert [(turn["role"], turn["content"]) for turn in sent[1]["messages"]] == [
        turn for turn in turns if turn[1]
    ]
    page.click("#clear")
    assert page.locator(".turn").count() == 0 and page.locator("#prompts").is_visible()


def test_editing_a_turn_regenerates_from_there(page: Any) -> None:
    sent = bodies(page)
    say(page, "First")
    say(page, "Second")
    page.locator(".user").first.get_by_role("button", name="Edit").click()
    page.fill(".turn form textarea", "Another")
    page.get_by_role("button", name="Send again").click()
    ended(page)
    assert [turn["content"] for turn in sent[-1]["messages"]] == ["Another"]
    assert (
        page.locator(".user .body").all_inner_texts() == ["Another"]
        and page.locator(".turn").count() == 2
    )


def test_edit_can_be_canceled(page: Any) -> None:
    say(page, "First")
    page.get_by_role("button", name="Edit").click()
    page.keyboard.type(" more")
    page.keyboard.press("Escape")
    assert page.locator(".user .body").inner_text() == "First"
    assert page.evaluate("document.activeElement.textContent") == "Edit"


def test_regenerate_replaces_only_the_last_answer(page: Any) -> None:
    sent = bodies(page)
    page.click("#open-settings")
    page.fill("#seed", "5")
    page.keyboard.press("Escape")
    say(page, "Who are you?")
    first = answer(page)
    page.get_by_role("button", name="Regenerate").click()
    ended(page)
    assert answer(page) == first, "the same seed gives the same text"
    assert sent[0] == sent[1] and page.locator(".turn").count() == 2


def test_settings_are_sent_and_stored(visit: Visit, tuned: str, page: Any) -> None:
    sent = bodies(page)
    values = {
        "temperature": "1.3",
        "top_p": "0.5",
        "min_p": "0.1",
        "top_k": "7",
        "max_tokens": "9",
        "seed": "0",
    }
    page.click("#open-settings")
    for name, value in values.items():
        page.fill(f"#{name}", value)
    page.fill("#stop-at", "zzz\\n\n\\\\n")
    page.reload()
    page.wait_for_selector("#prompts button")
    say(page, "Hello")
    expected = {name: float(value) for name, value in values.items()} | {
        "stop": ["zzz\n", "\\n"],
        "stream": True,
    }
    assert {name: sent[0][name] for name in expected} == expected
    assert page.locator(".assistant .acts").inner_text().count("token") <= 1
    page.click("#open-settings")
    assert page.locator("output").all_inner_texts() == ["1.30", "0.50", "0.10"]
    page.click("#reset")
    say(page, "Hello")
    assert "seed" not in sent[1] and "stop" not in sent[1] and sent[1]["temperature"] == 0.8


def test_settings_are_clamped_to_their_range(page: Any) -> None:
    sent = bodies(page)
    page.click("#open-settings")
    for name, value in (("top_k", "-3"), ("max_tokens", "99999999999999999999"), ("seed", "1e300")):
        page.fill(f"#{name}", value)
    page.keyboard.press("Tab")
    say(page, "Hello")
    context = page.evaluate("fetch('info').then((answer) => answer.json())")["context"]
    assert (
        sent[0]["top_k"] == 0 and sent[0]["max_tokens"] == context and 0 < sent[0]["seed"] < 2**53
    )
    assert page.locator(".problem").count() == 0


def test_invalid_stored_settings_are_ignored(page: Any) -> None:
    page.evaluate(
        """localStorage.setItem('groundup.settings',
        '{"temperature":"<b>","system":5,"seed":-1,"nothing":1,"top_k":3}');
      localStorage.setItem('groundup.theme', '{');
      localStorage.setItem('groundup.probable', '"yes"')"""
    )
    page.reload()
    page.wait_for_selector("#prompts button")
    sent = bodies(page)
    say(page, "Hello")
    assert sent[0]["temperature"] == 0.8 and sent[0]["top_k"] == 3 and "seed" not in sent[0]


def test_completion_continues_the_text_in_place(page: Any) -> None:
    sent = bodies(page)
    page.get_by_text("Complete", exact=True).click()
    page.click("#text")
    page.keyboard.type("The old house")
    page.keyboard.press("Enter")
    page.keyboard.type("stood")
    page.keyboard.press("Control+Enter")
    ended(page)
    made = page.locator(".made").text_content()
    assert sent[0]["prompt"] == "The old house\nstood" and made
    assert page.locator("#text").text_content() == "The old house\nstood" + made
    page.keyboard.type(" and")
    assert page.locator(".made").text_content() == made, "what a person types is not the model's"
    page.get_by_role("button", name="Continue").click()
    ended(page)
    assert sent[1]["prompt"].endswith(" and") and page.locator(".made").count() == 2


def test_completion_can_be_repeated(page: Any) -> None:
    sent = bodies(page)
    page.get_by_text("Complete", exact=True).click()
    page.locator("#prompts button").first.click()
    ended(page)
    page.get_by_role("button", name="Try again").click()
    ended(page)
    assert sent[0] == sent[1] and page.locator(".made").count() == 1
    page.click("#clear")
    assert page.locator("#text").text_content() == "" and page.locator("#prompts").is_visible()


def test_prompt_suggestion_starts_a_chat(page: Any) -> None:
    sent = bodies(page)
    words = page.locator("#prompts button span").first.inner_text()
    page.locator("#prompts button").first.click()
    ended(page)
    assert sent[0]["messages"][-1]["content"] == words
    assert page.locator("#prompts").is_hidden()


@pytest.mark.parametrize("mode", ["chat", "complete"])
def test_probabilities_match_the_stream(page: Any, mode: str) -> None:
    page.check("#probabilities")
    if mode == "chat":
        pieces = events(page, lambda: say(page, "Who are you?"))
        scores = [
            token["logprob"]
            for piece in pieces
            if piece["choices"]
            for token in (piece["choices"][0]["logprobs"] or {}).get("content", [])
        ]
    else:
        page.get_by_text("Complete", exact=True).click()
        page.click("#text")
        page.keyboard.type("The old")
        pieces = events(page, lambda: page.keyboard.press("Control+Enter"))
        scores = [
            score
            for piece in pieces
            if piece["choices"]
            for score in (piece["choices"][0]["logprobs"] or {}).get("token_logprobs", [])
        ]
    tokens = page.evaluate(
        "[...document.querySelectorAll('.t')].map((token) => [token.textContent, token.className])"
    )
    said = answer(page) if mode == "chat" else page.locator(".made").text_content()
    assert "".join(text for text, _ in tokens) == said
    if len(tokens) == len(scores):
        limits = (0.9, 0.5, 0.2, 0.05, 0.01)
        assert [int(name.split()[1][1]) for _, name in tokens] == [
            sum(math.exp(score) < limit for limit in limits) for score in scores
        ]
    else:
        assert 0 < len(tokens) < len(scores), "tokens that make a character together are one"


def test_tokens_are_reached_by_keyboard(page: Any) -> None:
    page.check("#probabilities")
    page.get_by_text("Complete", exact=True).click()
    page.get_by_text("Chat", exact=True).click()
    say(page, "Who are you?")
    tokens = page.locator(".assistant .t")
    assert page.locator(".t[tabindex]").count() == 1, "one tab stop for all"
    tokens.first.focus()
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement === [...document.querySelectorAll('.t')].at(-1)")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(
        "[...document.querySelectorAll('.t')].indexOf(document.activeElement)"
    ) == min(1, tokens.count() - 1)
    assert page.locator("#token").is_visible() and page.locator("#token .taken").count() == 1
    assert page.locator("#token .choice").count() >= 5
    assert "%" in page.evaluate("document.activeElement.ariaLabel")
    page.keyboard.press("Escape")
    assert page.locator("#token").is_hidden()
    page.uncheck("#probabilities")
    assert page.locator(".t[tabindex]").count() == 0
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.t')).backgroundColor")
        == "rgba(0, 0, 0, 0)"
    )


def test_caret_shows_the_token_card(page: Any) -> None:
    page.check("#probabilities")
    page.get_by_text("Complete", exact=True).click()
    page.click("#text")
    page.keyboard.type("The old")
    page.keyboard.press("Control+Enter")
    ended(page)
    page.keyboard.press("ArrowLeft")
    page.locator("#token").wait_for()
    assert page.locator("#token .taken").count() >= 1
    page.keyboard.type("Q")
    assert page.locator("#token").is_hidden()
    assert "Q" not in "".join(page.locator(".t").all_text_contents()), (
        "an edited token has no probability"
    )


def test_keyboard_only_use(visit: Visit, tuned: str) -> None:
    page = visit(tuned)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.name ||"
                " document.activeElement.textContent"
            )
        )
        # A radio button is hidden; its label shows the outline.
        assert page.evaluate(
            """['BODY', 'HTML'].includes(document.activeElement.tagName)
          || document.activeElement.name === 'mode'
          || getComputedStyle(document.activeElement).outlineStyle !== 'none'"""
        )
    assert {"mode", "theme", "open-settings", "message", "send", "probabilities"} <= seen
    page.focus("#open-settings")
    page.keyboard.press("Enter")
    assert page.locator("#settings").is_visible()
    page.focus("#temperature")
    page.keyboard.press("ArrowRight")
    assert page.locator("output").first.inner_text() == "0.85"
    page.keyboard.press("Escape")
    assert (
        page.locator("#settings").is_hidden()
        and page.evaluate("document.activeElement.id") == "open-settings"
    )
    page.focus("#message")
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    ended(page)
    assert page.locator(".user .body").text_content() == "One\ntwo"
    assert page.evaluate("document.activeElement.id") == "message"


def test_untuned_model_with_a_key(visit: Visit, untuned: str) -> None:
    page = visit(untuned, ready=False)
    page.locator("#key").wait_for()
    page.fill("#key-input", "wrong-key-of-24-chars-xx")
    page.keyboard.press("Enter")
    page.get_by_text("That key was not accepted.").wait_for()
    page.fill("#key-input", KEY)
    page.keyboard.press("Enter")
    known(page)
    assert page.evaluate("document.body.dataset.mode") == "complete"
    page.get_by_text("Chat", exact=True).click()
    assert "not tuned for chat" in page.locator("#about").inner_text()
    assert KEY in page.evaluate("JSON.stringify(sessionStorage)") and KEY not in page.evaluate(
        "JSON.stringify(localStorage) + document.cookie"
    )
    page.reload()
    page.wait_for_selector("body[data-mode=complete]")
    assert page.locator("#key").is_hidden()


def test_page_without_the_key_offers_retry(visit: Visit, untuned: str) -> None:
    page = visit(untuned, ready=False)
    page.locator("#key").wait_for()
    page.keyboard.press("Escape")
    page.locator("#notice").wait_for()
    assert page.locator("#notice button").inner_text() == "Retry"
    page.locator("#notice button").click()
    page.locator("#key").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP, WIDE])
def test_no_overflow_and_enough_contrast(
    visit: Visit, tuned: str, size: tuple[int, int], scheme: str
) -> None:
    page = visit(tuned, size, color_scheme=scheme)
    assert overflows(page) <= 0
    page.check("#probabilities")
    say(page, "Will the Minister make a statement?")
    page.click("#open-settings")
    assert overflows(page) <= 0
    poor = page.evaluate(CONTRAST)
    assert poor == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor").startswith("oklch(0.19")
    assert dark == (scheme == "dark")


# Contrast of all text with its background; WCAG AA asks for 4.5.
CONTRAST = """() => {
  const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
  const brush = canvas.getContext('2d', {willReadFrequently: true});
  const light = (colors) => {
    brush.clearRect(0, 0, 1, 1);
    for (const color of colors) { brush.fillStyle = color; brush.fillRect(0, 0, 1, 1); }
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = [...brush.getImageData(0, 0, 1, 1).data].map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => element
    ? [...behind(element.parentElement), getComputedStyle(element).backgroundColor] : [];
  const poor = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest(':disabled, .hidden')) continue;
    const ground = behind(element);
    const ink = light([...ground, getComputedStyle(element).color]);
    const [a, b] = [ink, light(ground)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    const name = element.className || element.id || element.tagName;
    if (contrast < 4.5) poor.push(`${name}: ${contrast.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_probability_colors_have_even_lightness_steps(
    visit: Visit, tuned: str, scheme: str
) -> None:
    page = visit(tuned, color_scheme=scheme)
    page.check("#probabilities")
    colors = page.evaluate(
        "[...document.querySelectorAll('#legend li:not(.p0)')].map((item) =>"
        " getComputedStyle(item).backgroundColor)"
    )
    lightness = [float(color.removeprefix("oklch(").split()[0]) for color in colors]
    steps = [after - before for before, after in pairwise(lightness)]
    assert len(steps) == 4 and all(math.isclose(step, steps[0], rel_tol=0.15) for step in steps)
    assert abs(steps[0]) >= 0.04


def test_theme_is_stored(page: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    assert (
        page.evaluate(ground) == light
        and page.locator("#theme").get_attribute("aria-label") == "Theme: light"
    )
    page.click("#theme")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark


def test_phone_has_large_targets_and_a_settings_sheet(visit: Visit, tuned: str) -> None:
    page = visit(tuned, PHONE, has_touch=True, is_mobile=True)
    say(page, "Hello")
    page.locator("#open-settings").tap()
    page.locator("#settings:modal").wait_for()
    small = page.evaluate(
        """[...document.querySelectorAll(
        'button, summary, .modes label, [type=range], [type=number], textarea')]
      .filter((target) => target.checkVisibility())
      .map((target) => [target.textContent || target.id, target.getBoundingClientRect().height])
      .filter(([, height]) => height < 44)"""
    )
    assert small == []
    page.keyboard.press("Escape")
    assert page.locator("#settings").is_hidden()
    box = page.locator("#message").bounding_box()
    assert box is not None and box["y"] + box["height"] <= PHONE[1], "the input is in view"


def test_reduced_motion(visit: Visit, tuned: str) -> None:
    page = visit(tuned, reduced_motion="reduce")
    page.evaluate(
        "chat.append(Object.assign(document.createElement('div'), {className: 'body writing',"
        " innerHTML: '<div>a</div>'}))"
    )
    assert (
        page.evaluate(
            "getComputedStyle(document.querySelector('.writing div'), '::after').animationName"
        )
        == "none"
    )


def test_controls_have_names_and_page_has_landmarks(page: Any) -> None:
    say(page, "Hello")
    page.click("#open-settings")
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input, textarea, meter, dialog, [role=textbox]')]
      .filter((control) => !control.ariaLabel && !control.labels?.length)
      .filter((control) => !control.textContent.trim())
      .map((control) => control.id || control.outerHTML)"""
    )
    assert nameless == []
    assert [page.locator(tag).count() for tag in ("header", "main", "footer", "h1")] == [1, 1, 1, 1]
    assert page.evaluate(
        "[...document.querySelectorAll('[id]')].length === new"
        " Set([...document.querySelectorAll('[id]')].map((element) => element.id)).size"
    )


def test_copy(visit: Visit, tuned: str) -> None:
    page = visit(tuned, permissions=["clipboard-read", "clipboard-write"])
    say(page, "Hello")
    page.locator(".user").get_by_role("button", name="Copy").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "Hello"
    page.click("#copy-all")
    page.locator("#copy-all", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").startswith("You: Hello\n\n")
