"""Output text of the engine: stop strings, whole characters, and scores in step with the text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.engine_kit import TOKENIZER
from tests.helpers.examples import examples

from groundup.engines.request import Logprob, OutputProcessor, RequestOutput, StopStringScanner

STRINGS = TOKENIZER.byte_strings()
STOPS = st.lists(st.text("abé", min_size=1, max_size=6), max_size=4)


@st.composite
def texts_and_stops(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Draw overlapping stop strings, and a text full of them and their prefixes."""
    stops = draw(STOPS)
    beginnings = [stop[:end] for stop in stops for end in range(1, len(stop) + 1)]
    return (
        "".join(draw(st.lists(st.sampled_from(["a", "b", "é", *beginnings]), max_size=12))),
        stops,
    )


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """Return the text up to the stop string that ends first, by definition."""
    for end in range(len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(map(len, ended))], True
    return text, False


@examples(300)
@given(texts_and_stops(), st.lists(st.integers(0, 40)))
def test_splitting_does_not_change_the_text(texts: tuple[str, list[str]], cuts: list[int]) -> None:
    """The output is the same for any split of the input, and never has to be taken back."""
    text, stops = texts
    scanner, sent, read = StopStringScanner(stops), "", 0
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    for start, end in zip(borders, [*borders[1:], len(text)], strict=True):
        sent += scanner.add(text[start:end])
        read = end
        so_far, stopped = expected(text[:read], stops)
        assert stopped == scanner.stopped
        assert so_far.startswith(sent)
        # Only text that may still become a stop string is held back.
        held = so_far[len(sent) :]
        assert stopped or not held or any(stop.startswith(held) and stop != held for stop in stops)
    assert (sent + scanner.flush(), scanner.stopped) == expected(text, stops)


def test_long_stop_strings_are_not_slow() -> None:
    """Work for each character is bounded, even if a stop string almost matches everywhere."""
    scanner = StopStringScanner(["a" * 20_000 + "b", "a" * 19_999 + "c"])
    sent = "".join(scanner.add("aaaa") for _ in range(25_000))
    assert len(sent) == 80_000
    assert scanner.add("b") == ""
    assert scanner.stopped


def run(ids: list[int], stops: tuple[str, ...] = (), reason: str = "length") -> list[RequestOutput]:
    processor, outputs = OutputProcessor(stops, STRINGS), []
    for token in ids:
        processor.add(token, Logprob(token, STRINGS[token], -1.0))
        if processor.stopped:
            break
        outputs.append(processor.next_output())
    return [output for output in [*outputs, processor.finish(reason)] if output is not None]  # type: ignore[arg-type]


TOKENS = st.lists(st.integers(0, TOKENIZER.vocab_size - 1) | st.integers(3, 258), max_size=30)


@given(TOKENS)
def test_outputs_add_up_to_the_text(ids: list[int]) -> None:
    """Every token is counted and scored once, in order."""
    outputs = run(ids)
    assert "".join(output.text for output in outputs) == TOKENIZER.decode(ids)
    assert sum(output.num_tokens for output in outputs) == len(ids)
    assert [score.token_id for output in outputs for score in output.logprobs] == ids
    assert [output.finish_reason for output in outputs] == [None] * (len(outputs) - 1) + ["length"]
    assert all(output.text or output.logprobs for output in outputs[:-1])


@given(st.text("ab€🙂 ", max_size=30))
def test_output_tokens_match_output_text(text: str) -> None:
    """The bytes of an output's tokens are the bytes of its text."""
    for output in run(TOKENIZER.encode(text)):
        assert b"".join(score.token_bytes for score in output.logprobs).decode() == output.text


@given(texts_and_stops())
def test_no_part_of_a_stop_string_is_sent(texts: tuple[str, list[str]]) -> None:
    """The scores end where the text ends, too."""
    text, stops = texts
    ids = TOKENIZER.encode(text)
    outputs = run(ids, tuple(stops))
    text_before_stop, stopped = expected(text, stops)
    assert "".join(output.text for output in outputs) == text_before_stop
    assert outputs[-1].finish_reason == ("stop" if stopped else "length")
    data = [score.token_bytes for output in outputs for score in output.logprobs]
    # The last token may extend into the stop string; no token lies inside it.
    assert b"".join(data).startswith(text_before_stop.encode())
    assert len(b"".join(data[:-1])) < max(1, len(text_before_stop.encode()))


def test_incomplete_character_becomes_a_replacement() -> None:
    """As in decoding; a stop string may be U+FFFD."""
    half = [STRINGS.index(bytes([byte])) for byte in "é€".encode()[:-1]]
    assert "".join(output.text for output in run(half)) == "é\N{REPLACEMENT CHARACTER}"
    outputs = run(half, ("\N{REPLACEMENT CHARACTER}",))
    assert "".join(output.text for output in outputs) == "é"
    assert outputs[-1].finish_reason == "stop"
