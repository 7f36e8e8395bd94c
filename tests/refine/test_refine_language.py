"""Language identification: what is named, and agreement of the kernel with py3langid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from tests.helpers.examples import examples

from groundup.artifacts.arrays import text_array, text_buffers
from groundup.recipe import LANGUAGES, MEMBERS
from groundup.refine.filter import language, language_model

SENTENCES = {
    "This is an ordinary sentence about the weather in town.": "en",
    "Dies ist ein ganz gewöhnlicher Satz über das Wetter in der Stadt.": "de",
    "THIS IS A HEADLINE IN CAPITAL LETTERS ABOUT THE WEATHER": "en",
    "今日は天気がいいので、公園へ散歩に行きました。": "ja",
    "今天天氣很好，我們去公園散步，晚上再回家吃飯。": "zh",
    "זה משפט רגיל לגמרי על מזג האוויר בעיר שלנו היום": "he",
    "Dette er en helt vanlig setning om været i byen som vi bor i.": "no",
    "ok": "",
    "12345 67890 !!! ???": "",
    "": "",
}
WORDS = st.sampled_from(
    "the weather is fine der Wind und die Stadt le chat noir 天気 がいい и вода 7 # \n".split(" ")
) | st.text(max_size=4)
TEXTS = (
    st.lists(WORDS, max_size=12)
    .map(" ".join)
    .filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text))
)


@pytest.fixture(scope="module")
def reference() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE)


def test_languages() -> None:
    """Short texts are not named and have share 1; capitals do not mislead."""
    found = language.detect(pa.array(SENTENCES), ["en"])
    assert dict(zip(SENTENCES, found.code.to_pylist(), strict=True)) == SENTENCES
    assert (found.share >= language.MIN_SHARE).tolist() == [
        code in ("en", "") for code in SENTENCES.values()
    ]


def test_a_title_page_does_not_decide() -> None:
    """Names, a foreign dedication and a ruled line before a text do not hide its language."""
    english = "It was a fine day, and the people of the town went out to see the ships. " * 200
    german = "Und so gingen sie alle zusammen über die Brücke in die alte Stadt zurück. " * 12
    latin = "Arma virumque cano, Troiae qui primus ab oris Italiam fato profugus venit. " * 6
    texts = [latin + english, "-" * 400 + english, "1 2 3 4 5 6 7 8 9 " * 20 + english]
    assert language.detect(pa.array(texts)).code.to_pylist() == ["en"] * 3
    found = language.detect(pa.array([english + german, german + english]), ["en"])
    assert (found.share > 0.6).all()


def slices(texts: list[str]) -> list[str]:
    samples = language.sample_slices(text_buffers(pa.array(texts, pa.string())))
    return [str(text) for text in text_array(*samples).to_pylist()]


def test_slices_against_plain_slices() -> None:
    """A short text is read whole; of a long one a bounded part, its beginning and end included."""
    size, most = language.SLICE_CHARACTERS, language.MAX_SLICES
    whole = ["", "a", "日本語" * 200, "ab é" * 150]
    assert slices(whole) == whole
    for letter in "aé語𠀀":
        text = "".join(f"{letter}{n:05} " for n in range(20_000))
        sample = slices(["x", text])[1]
        assert len(sample) == most * (size + 1) - 1
        assert sample.startswith(text[:size])
        assert text[-size // 2 : -9] in sample[-size:]
        assert all(sample[k * (size + 1) : k * (size + 1) + size] in text for k in range(most))


def test_codes_are_those_of_recipes() -> None:
    """The codes of the model are those that a recipe may name."""
    codes = [code for code in language_model.language_model().codes if code != language.NO_LANGUAGE]
    assert codes == sorted(LANGUAGES)
    assert set(MEMBERS.values()) <= set(LANGUAGES)
    assert not set(MEMBERS) & set(LANGUAGES)


@examples(100)
@given(st.lists(st.text(st.sampled_from("aZ7é漢 ß\n"), max_size=30), max_size=5))
def test_ascii_letters(texts: list[str]) -> None:
    """Small and capital letters of ASCII, counted per text."""
    found = language.ascii_letters(text_buffers(pa.array(texts, pa.string())))
    assert found.tolist() == [[text.count("a"), text.count("Z")] for text in texts]


def test_model_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mapped from the cache is what the package holds; without a cache nothing is lost."""
    tables = language_model._arrays()
    for folder in (tmp_path / "cache", Path("/dev/null")):
        monkeypatch.setattr(language_model, "cache_folder", lambda folder=folder: folder)
        for _ in range(2):
            model = language_model.language_model.__wrapped__()
            assert model.codes == tuple(tables["codes"].tolist())
            assert model.start == tables["start"][0]
            for name in ("moves", "first", "features", "weights", "priors", "code_of"):
                table = getattr(model, name)
                assert (table == tables[name]).all()
                assert table.dtype == tables[name].dtype
                assert not table.flags.writeable
    assert [path.name[:9] for path in (tmp_path / "cache").iterdir()] == ["language-"]


def test_two_languages() -> None:
    """Half English, half German: both shares exceed a third, and they sum to nearly 1."""
    english, german = list(SENTENCES)[:2]
    found = [
        language.detect(pa.array([f"{english} " * 5 + f"{german} " * 4]), codes).share[0]
        for codes in (["en"], ["de"], ["en", "de"])
    ]
    assert min(found[:2]) > 1 / 3
    assert found[2] > 0.95


def test_markup_is_no_language() -> None:
    """Hexadecimal digits and markup are in no language."""
    found = language.detect(
        pa.array(["deadbeef cafe0123 " * 20, "<td><tr><div></div></tr></td> " * 20]), ["en"]
    )
    assert found.share.min() >= 0
    assert found.share.max() <= 1


def test_half_of_a_text_decides() -> None:
    """Codes are the same whether texts are read to their end, for shares, or only until decided."""
    english, german = (f"{sentence} " * 9 for sentence in list(SENTENCES)[:2])
    texts = [english + german * n for n in range(2 * language.SIDE_BY_SIDE)]
    texts += [german * n + english for n in range(4)] + [*SENTENCES, "1 2 3 4 5 6 7 8 9 " * 50]
    found = language.detect(pa.array(texts)).code.to_pylist()
    assert found == language.detect(pa.array(texts), ["en"]).code.to_pylist()
    assert {"en", "de", ""} <= set(found)


@examples(100)
@given(st.lists(TEXTS, min_size=1, max_size=2 * language.SIDE_BY_SIDE))
def test_window_against_py3langid(reference: LanguageIdentifier, texts: list[str]) -> None:
    """Log-probabilities of a window equal those of py3langid; texts are independent."""
    model = language_model.language_model()
    for text in texts:
        data = np.frombuffer(text.encode(), np.uint8)[: language.WINDOW_BYTES]
        offsets = np.array([0, len(data)], np.int32)
        found = language.read_features(
            (offsets, data), model.moves, model.first, model.features, model.start
        )
        counts, seen = (
            np.zeros(len(model.weights), np.uint16),
            np.empty(len(language.LOGARITHMS) + 3, np.int32),
        )
        scores = np.empty(len(model.priors), np.float32)
        language.score_window(
            found, model.weights, model.priors, language.LOGARITHMS, counts, seen, scores
        )
        if (scores != model.priors).any():
            assert np.allclose(scores, reference._raw_score(data.tobytes()), rtol=1e-4, atol=1e-2)
        assert not counts.any()
    together = language.detect(pa.array(texts), ["en"])
    alone = [language.detect(pa.array([text]), ["en"]) for text in texts]
    assert together.code.to_pylist() == [one.code[0].as_py() for one in alone]
    assert together.share.tolist() == [one.share[0] for one in alone]


@examples(50)
@given(
    st.lists(
        st.text(max_size=700).map(lambda text: text.encode("utf-8", "replace").decode()), max_size=3
    )
)
def test_any_text(texts: list[str]) -> None:
    """Shares lie between 0 and 1 for any text."""
    found = language.detect(pa.array(texts, pa.string()), ["en", "fr"])
    assert len(found.code) == len(texts)
    assert ((found.share >= 0) & (found.share <= 1)).all()
    samples = slices(texts)
    for text, sample in zip(texts, samples, strict=True):
        assert sample == text or len(text) > language.SLICE_CHARACTERS * language.MIN_SLICES
