"""What leaves the engine as text: stop strings across any border, whole characters, scores in step."""

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
    """Return stop strings that overlap themselves and each other, and a text that is full of them
    and their beginnings.
    """
    stops = draw(STOPS)
    beginnings = [stop[:end] for stop in stops for end in range(1, len(stop) + 1)]
    return (
        "".join(draw(st.lists(st.sampled_from(["a", "b", "é", *beginnings]), max_size=12))),
        stops,
    )


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """Return the text up to the stop string that ends first (the longest of those), from the
    definition.
    """
    for end in range(len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(map(len, ended))], True
    return text, False


@examples(300)
@given(texts_and_stops(), st.lists(st.integers(0, 40)))
def test_any_cut_gives_the_same_text(texts: tuple[str, list[str]], cuts: list[int]) -> None:
    """However text is cut into outputs, the same comes through, and nothing of it must be taken
    back.
    """
    text, stops = texts
    scanner, sent, read = StopStringScanner(stops), "", 0
    borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    for start, end in zip(borders, [*borders[1:], len(text)], strict=True):
        sent += scanner.add(text[start:end])
        read = end
        so_far, found = expected(text[:read], stops)
        assert found == scanner.stopped
        assert so_far.startswith(sent)
        # Held back is only what may still become a stop string.
        held = so_far[len(sent) :]
        assert found or not held or any(stop.startswith(held) and stop != held for stop in stops)
    assert (sent + scanner.flush(), scanner.stopped) == expected(text, stops)


def test_long_stop_strings_are_not_slow() -> None:
    """The work a character is bounded, also for a stop string that nearly matches everywhere
    (seconds here if it were not).
    """
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
def test_pieces_are_the_text(ids: list[int]) -> None:
    """All outputs together are what the tokenizer decodes, every token is counted and scored once,
    in order.
    """
    outputs = run(ids)
    assert "".join(output.text for output in outputs) == TOKENIZER.decode(ids)
    assert sum(output.num_tokens for output in outputs) == len(ids)
    assert [score.token_id for output in outputs for score in output.logprobs] == ids
    assert [output.finish_reason for output in outputs] == [None] * (len(outputs) - 1) + ["length"]
    assert all(output.text or output.logprobs for output in outputs[:-1])


@given(st.text("ab€🙂 ", max_size=30))
def test_a_piece_holds_the_tokens_of_its_text(text: str) -> None:
    """Bytes of an output's tokens are the bytes of its text: a client can lay one over the other."""
    for output in run(TOKENIZER.encode(text)):
        assert b"".join(score.token_bytes for score in output.logprobs).decode() == output.text


@given(texts_and_stops())
def test_no_part_of_a_stop_string_leaves(texts: tuple[str, list[str]]) -> None:
    """Through tokens, too; and the scores end where the text ends."""
    text, stops = texts
    ids = TOKENIZER.encode(text)
    outputs = run(ids, tuple(stops))
    wanted, found = expected(text, stops)
    assert "".join(output.text for output in outputs) == wanted
    assert outputs[-1].finish_reason == ("stop" if found else "length")
    data = [score.token_bytes for output in outputs for score in output.logprobs]
    # The last token may go on into the stop string; none lies in it as a whole.
    assert b"".join(data).startswith(wanted.encode())
    assert len(b"".join(data[:-1])) < max(1, len(wanted.encode()))


def test_text_that_is_cut_short_ends_in_a_replacement() -> None:
    """An answer that ends in the middle of a character says so, as decoding it would; a stop string
    may be that sign.
    """
    half = [STRINGS.index(bytes([byte])) for byte in "é€".encode()[:-1]]
    assert "".join(output.text for output in run(half)) == "é\N{REPLACEMENT CHARACTER}"
    outputs = run(half, ("\N{REPLACEMENT CHARACTER}",))
    assert "".join(output.text for output in outputs) == "é"
    assert outputs[-1].finish_reason == "stop"
