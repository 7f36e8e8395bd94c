"""The page with a server that is slow, cut off, busy or hostile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.helpers.page_fake import Fake, serve
from tests.helpers.page_kit import (
    PHONE,
    answer,
    ended,
    overflows,
    say,
)

Visit = Callable[..., Any]

# Each would run, or change the page, if it were parsed as HTML.
MARKUP = (
    "<script>alert(1)</script><img src=x onerror=alert(2)><svg/onload=alert(3)><iframe"
    " srcdoc='<script>alert(4)</script>'></iframe></div></textarea></style>"
    "<style>*{display:none}</style><a href='javascript:alert(5)'>a</a>{{7*7}}${alert(6)}"
)
CONTROL = (
    "\x1b[31mred\x07\x08\x7f\u202egnp.exe\u2066\u200f\ufeff\u0000" + "Z" + "\u0335\u0489" * 200
)
LONG = "x" * 100_000


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serve() as server:
        yield server


@pytest.fixture
def page(visit: Visit, fake: Fake) -> Any:
    return visit(fake.url)


def begun(page: Any, fake: Fake, text: str = "Hello") -> None:
    """Send a message and wait for the first part of an answer that then stalls."""
    fake.gate.clear()
    page.fill("#message", text)
    page.press("#message", "Enter")
    page.locator(".assistant .body.writing").filter(has_text=fake.pieces[0]).last.wait_for()


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop_keeps_the_text_and_disconnects(page: Any, fake: Fake, how: str) -> None:
    begun(page, fake)
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    ended(page)
    assert answer(page) == "Hello" and "Stopped." in page.locator(".assistant .acts").inner_text()
    assert fake.hung_up.wait(20), "the server need not go on for nobody"
    assert page.locator("#send").is_visible() and page.locator("#stop").is_hidden()
    fake.gate.set()
    page.get_by_role("button", name="Regenerate").click()
    ended(page)
    assert answer(page) == "Hello there."


def test_stop_in_completion_keeps_the_text(page: Any, fake: Fake) -> None:
    page.get_by_text("Complete", exact=True).click()
    page.click("#text")
    page.keyboard.type("Once")
    fake.gate.clear()
    page.keyboard.press("Control+Enter")
    page.locator(".made", has_text="Hello").wait_for()
    page.keyboard.type("lost")
    page.keyboard.press("Escape")
    ended(page)
    assert page.locator("#text").text_content() == "OnceHello"


def test_only_one_answer_at_a_time(page: Any, fake: Fake) -> None:
    begun(page, fake)
    page.fill("#message", "Another")
    page.press("#message", "Enter")
    page.locator(".user").get_by_role("button", name="Edit").click()
    assert (
        len(fake.requests) == 1
        and page.locator(".turn").count() == 2
        and page.locator(".turn form").count() == 0
    )
    assert page.input_value("#message") == "Another", "what was typed meanwhile stays"
    fake.gate.set()
    ended(page)


def test_mode_change_and_clear_stop_generation(page: Any, fake: Fake) -> None:
    begun(page, fake)
    page.get_by_text("Complete", exact=True).click()
    ended(page)
    page.get_by_text("Chat", exact=True).click()
    assert answer(page) == "Hello"
    begun(page, fake)
    page.click("#clear")
    ended(page)
    assert page.locator(".turn").count() == 0
    fake.gate.set()
    say(page, "Again")
    assert answer(page) == "Hello there." and page.locator(".turn").count() == 2


def test_empty_answer_can_be_regenerated(page: Any, fake: Fake) -> None:
    fake.pieces = []
    say(page, "Hi")
    assert (
        answer(page) == "" and page.locator("#status").inner_text() == "The model returned no text."
    )
    fake.pieces = ["Hello"]
    page.get_by_role("button", name="Regenerate").click()
    ended(page)
    assert answer(page) == "Hello" and [
        turn["content"] for turn in fake.requests[1]["messages"]
    ] == ["Hi"]


def test_lost_connection_keeps_the_text_and_offers_retry(page: Any, fake: Fake) -> None:
    fake.cut = True
    say(page, "Hi")
    assert answer(page) == "Hello there."
    assert page.locator(".problem").inner_text().startswith("The connection was lost.")
    fake.cut = False
    page.get_by_role("button", name="Retry").click()
    ended(page)
    assert (
        page.locator(".problem").count() == 0
        and page.locator(".turn").count() == 2
        and answer(page) == "Hello there."
    )
    assert [turn["content"] for turn in fake.requests[1]["messages"]] == ["Hi"]


def test_error_event_is_shown(page: Any, fake: Fake) -> None:
    fake.pieces = ["Hello", {"error": {"message": "out of memory"}}, "never"]
    say(page, "Hi")
    assert answer(page) == "Hello"
    assert "out of memory" in page.locator(".problem").inner_text()


@pytest.mark.parametrize(
    "piece",
    [b"data: {\n\n", b"data: [DONE", b"\xff\xfe\n\n", b"data: 5\n\ndata: null\n\ndata: []\n\n"],
)
def test_invalid_stream_is_one_error(page: Any, fake: Fake, piece: bytes) -> None:
    fake.pieces, fake.cut = ["Hello", piece], True
    say(page, "Hi")
    assert answer(page) == "Hello" and page.locator(".problem").count() == 1


def test_busy_server_shows_retry_after(page: Any, fake: Fake) -> None:
    fake.refuse(429, "queue full", Retry_After="7")
    say(page, "Hi")
    assert (
        page.locator(".problem")
        .inner_text()
        .startswith("The server is busy; it asks to wait 7 seconds.")
    )
    page.get_by_role("button", name="Retry").click()
    ended(page)
    assert answer(page) == "Hello there." and page.locator(".turn").count() == 2


def test_server_errors_are_shown_in_place(page: Any, fake: Fake) -> None:
    fake.refuse(400, f"top_k is wrong {MARKUP}")
    say(page, "Hi")
    assert MARKUP in page.locator(".problem").inner_text()
    fake.refuse(500, "")
    page.get_by_role("button", name="Retry").click()
    ended(page)
    assert page.locator(".problem").count() == 1
    fake.refuse(400, "no")
    page.get_by_text("Complete", exact=True).click()
    page.locator("#prompts button").first.click()
    ended(page)
    assert page.locator("#text").text_content() == "Once upon" and page.locator(
        "#after .problem"
    ).inner_text().startswith("no")


def test_unreachable_server(visit: Visit) -> None:
    with serve() as fake:
        page = visit(fake.url)
    say(page, "Hi")
    assert page.locator(".problem").inner_text().startswith("The server does not answer.")
    assert page.locator(".user .body").inner_text() == "Hi"


def test_key_required_during_a_conversation(page: Any, fake: Fake) -> None:
    fake.key = "sesame"
    page.fill("#message", "Hi")
    page.press("#message", "Enter")
    page.fill("#key-input", "ключ")
    page.keyboard.press("Enter")
    assert page.locator("#key").is_visible(), "a key that no header can carry is not taken"
    page.fill("#key-input", "sesame")
    page.keyboard.press("Enter")
    page.locator(".again").wait_for()
    assert answer(page) == "Hello there."
    fake.key = "other"
    page.fill("#message", "More")
    page.press("#message", "Enter")
    page.get_by_role("button", name="Cancel").click()
    ended(page)
    assert page.locator(".problem").inner_text().startswith("A key is needed.")


@pytest.mark.parametrize("text", [MARKUP, CONTROL, LONG], ids=["markup", "control", "long"])
@pytest.mark.parametrize("probable", [False, True])
def test_hostile_text_is_shown_as_text(visit: Visit, fake: Fake, text: str, probable: bool) -> None:
    fake.info |= {
        "run": text[:300],
        "prompts": [{"text": text, "kind": text[:300], "mode": "chat"}],
    }
    raw = text.encode()
    fake.pieces = (
        [(text, [(raw, -1.0, [(raw, -1.0), (b"<b>", -2.0)])])] if probable else [text, text]
    )
    page = visit(fake.url, PHONE)
    assert overflows(page) <= 0
    if probable:
        page.check("#probabilities")
    say(page, text[:20_000])
    assert answer(page) == text * len(fake.pieces)
    if probable:
        page.locator(".t").first.focus()
        assert page.locator("#token").is_visible()
    page.locator(".user").get_by_role("button", name="Edit").click()
    page.keyboard.press("Escape")
    page.click("#open-settings")
    assert overflows(page) <= 0
    assert page.locator("main :is(script, img, svg, iframe, style, a)").count() == 0
    assert page.locator("#send").is_visible()


def test_hostile_text_is_shown_as_text_in_completion(page: Any, fake: Fake) -> None:
    fake.pieces = [MARKUP, CONTROL.replace("\x00", "")]
    page.get_by_text("Complete", exact=True).click()
    page.click("#text")
    page.evaluate("(text) => document.execCommand('insertText', false, text)", MARKUP)
    page.keyboard.press("Control+Enter")
    ended(page)
    assert page.locator("#text").text_content() == MARKUP + MARKUP + CONTROL.replace("\x00", "")
    assert page.locator("#text :not(.made, br)").count() == 0


def test_pasted_html_is_plain_text(page: Any) -> None:
    page.get_by_text("Complete", exact=True).click()
    page.click("#text")
    page.evaluate("""() => {
      const data = new DataTransfer();
      data.setData('text/html', '<b onclick=alert(1)>bold</b><img src=x onerror=alert(2)>');
      data.setData('text/plain', 'bold');
      navigator.clipboard.write = undefined;
      const options = {clipboardData: data, bubbles: true, cancelable: true};
      document.activeElement.dispatchEvent(new ClipboardEvent('paste', options));
    }""")
    page.keyboard.press("Control+B")
    page.keyboard.type("a")
    assert page.locator("#text :not(br)").count() == 0


def scored(*tokens: tuple[bytes, float]) -> list[Any]:
    return [(raw, logprob, [(raw, logprob), (b"\xff", -9.0)]) for raw, logprob in tokens]


def test_tokens_within_a_character_are_joined(page: Any, fake: Fake) -> None:
    half = math.log(0.5)
    dog = "🐕".encode()
    fake.pieces = [
        ("", scored((dog[:1], half))),
        ("", scored((dog[1:3], half))),
        ("🐕", scored((dog[3:], half))),
        ("é b", scored(("é".encode()[:1], half), ("é b".encode()[1:], half))),
        ("\ufffd!", scored((b"\xc3", half), (b"!", half))),
    ]
    page.check("#probabilities")
    for mode in ("Chat", "Complete"):
        page.get_by_text(mode, exact=True).click()
        page.locator("#prompts button").first.click()
        ended(page)
        place = "#chat .t" if mode == "Chat" else "#text .t"
        assert page.locator(place).all_text_contents() == ["🐕", "é b", "\ufffd!"]
        assert [
            name.split()[1]
            for name in page.locator(place).evaluate_all(
                "(all) => all.map((token) => token.className)"
            )
        ] == [
            "p3",
            "p2",
            "p2",
        ]
    page.get_by_text("Chat", exact=True).click()
    page.locator(".t").first.focus()
    assert "3 tokens make this text" in page.locator("#token").inner_text()
    assert (
        "f0" in page.locator("#token").inner_text()
        and "9f 90" in page.locator("#token").inner_text()
    )


def test_text_after_a_stop_string_is_not_shown(page: Any, fake: Fake) -> None:
    fake.pieces = [
        ("Hello", scored((b"Hello", -0.1))),
        (" w", scored((b" wor", -0.1), (b"ld", -0.1))),
    ]
    page.check("#probabilities")
    say(page, "Hi")
    assert answer(page) == "Hello w"
    assert page.locator(".t").all_text_contents()[:2] == ["Hello", " w"]


def test_oldest_turns_are_left_out_of_a_full_context(page: Any, fake: Fake) -> None:
    for text in ("First", "Second", "Third"):
        say(page, text)
    fake.refuse(400, "too long", "context_length_exceeded")
    fake.refuse(400, "too long", "context_length_exceeded")
    fake.info["context"] = 20_000
    say(page, "Fourth")
    last = [turn["content"] for turn in fake.requests[-1]["messages"]]
    assert (
        last[-1] == "Fourth"
        and "First" not in last
        and fake.requests[-1]["messages"][0]["role"] == "user"
    )
    assert page.get_by_text("The model no longer sees what is above.").count() == 1
    assert page.locator(".problem").count() == 0 and page.locator(".user").count() == 4


def test_message_longer_than_the_context_is_an_error(page: Any, fake: Fake) -> None:
    for _ in range(60):
        fake.refuse(400, "This model's context is 4 tokens.", "context_length_exceeded")
    say(page, "A long message " * 50)
    assert page.locator(".problem").inner_text().startswith("This model's context")
    assert len(fake.requests) < 5


def test_completion_sends_the_end_of_a_long_text(page: Any, fake: Fake) -> None:
    words = " ".join(f"word{number}" for number in range(20_000))
    page.get_by_text("Complete", exact=True).click()
    page.click("#text")
    page.evaluate("(text) => document.execCommand('insertText', false, text)", words)
    fake.refuse(400, "too long", "context_length_exceeded")
    page.keyboard.press("Control+Enter")
    ended(page)
    first, second = (body["prompt"] for body in fake.requests)
    assert (
        words.endswith(first)
        and words.endswith(second)
        and 0 < len(second) < len(first) < len(words)
    )
    assert first.startswith("word") and second.startswith("word")
    assert page.locator("#text").text_content() == words + "Hello there."


def test_long_answer_is_only_appended_to(page: Any, fake: Fake) -> None:
    fake.pieces = [
        f"token{number}" + ("\n" if number % 9 == 0 else " ") for number in range(10_000)
    ]
    page.evaluate("""() => {
      window.removed = 0;
      const count = (changes) =>
        changes.forEach((change) => (removed += change.removedNodes.length));
      const chat = document.getElementById('chat');
      new MutationObserver(count).observe(chat, {childList: true, subtree: true});
    }""")
    say(page, "Go on")
    assert answer(page) == "".join(fake.pieces)
    assert page.evaluate("removed") == 0
    longest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('.assistant .body > div')].map((block) =>"
        " block.textContent.length))"
    )
    assert longest < 1200, "a frame lays out one block, not the answer"
    assert page.evaluate("innerHeight + scrollY >= document.documentElement.scrollHeight - 2"), (
        "the end is in view"
    )


def test_no_scrolling_while_the_user_reads_above(page: Any, fake: Fake) -> None:
    fake.pieces = ["line\n" * 200, "line\n" * 200]
    fake.gate.clear()
    page.fill("#message", "Go on")
    page.press("#message", "Enter")
    page.locator(".writing", has_text="line").wait_for()
    page.evaluate("scrollTo(0, 300)")
    fake.gate.set()
    ended(page)
    assert page.evaluate("scrollY") == 300 and len(answer(page)) == 2000


def test_blocks_keep_line_breaks_and_layout(page: Any, fake: Fake) -> None:
    text = "a" * 900 + "\n\n\n" + "b" * 900 + "\nend"
    fake.pieces = [text]
    say(page, "Hi")
    assert answer(page) == text and page.locator(".assistant .body > div").count() > 1
    heights = page.evaluate("""() => {
      const body = document.querySelector('.assistant .body');
      const before = body.getBoundingClientRect().height;
      const whole = body.cloneNode(); whole.textContent = body.textContent; body.replaceWith(whole);
      return [before, whole.getBoundingClientRect().height];
    }""")
    assert heights[0] == heights[1]


def test_page_size(fake: Fake) -> None:
    from tests.helpers.page_fake import PAGE

    assert sum(path.stat().st_size for path in PAGE.iterdir()) < 60_000
