"""A byte-level BPE tokenizer: text ↔ ids, exact for every valid string. Reads tokenizer.json, which
`tokenize/bpe.py` writes.

Properties that the rest of the project leans on:

* `decode(encode(text)) == text` for any valid Unicode: no normalizer, and all 256 bytes are tokens.
  (Some tokenizers from
  elsewhere bring text into normal form C first; what refine leaves is in it.)
* Text never yields a special token. "<|im_end|>" inside a document is nine ordinary characters;
  only code that builds
  a chat, and the end of a document, put specials in.
* The splitter of those that are trained here is Qwen2's, under the name by which llama.cpp and
  transformers know it.
"""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tokenizers

from groundup.artifacts.pretokenizers import AT_SPACES_AND_LINES, safe_cuts, splitter
from groundup.errors import GroundupError

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"

END = "<|endoftext|>"
# At the start of the vocabulary: their ids are 0, 1 and 2 however many merges the data gave, and
# the ids of a smaller vocabulary are a prefix of those of a larger one trained on the same text.
CHAT = ("<|im_start|>", "<|im_end|>")
SPECIALS = (END, *CHAT)

# A longer text is encoded in pieces; and that many characters at most are encoded together, because
# `tokenizers` keeps about 150 bytes for each token until its Python object is gone.
PIECE_CHARACTERS = 1 << 18
BATCH_CHARACTERS = 1 << 21

# What tokenizers get wrong: normalizers, special tokens in text, splitters that differ in one class
# of characters. Exported and pretrained tokenizers are checked with these texts.
PROBES = (
    "",
    " ",
    "  two  spaces  ",
    "\0 a\0b \x07\x7f\x85",
    "e\u0301\u0302 \u0301",
    "Ａｆﬁ ﷽ ǅ İ ß ẞ ½ ² Ⅷ",
    "👨\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 🇺🇳🇺",
    "\u202eright to left\u202c \u2066x\u2069 שלום مرحبا",
    "ᄒ 한 각ᆨ 한국어 中文。日本語、ภาษาไทย हिन्दी",
    "<|endoftext|>a<|im_start|>user\n<|im_end|>b<|endoftext",
    "\r\n\r\n  a\r\n\tb\r \u00a0\u2028\u2029\u200b\ufeff\u3000",
    "don't DON'T I'll 'S ſ's we'Ve",
    "12345 1,234.5 १२३ ١٢٣",
    "\U0010ffff\ufffe\ufdd0",
    "def f(x):\n\tif x:\n\t\treturn {'a': [1, 2]}  # ...\n\n\n",
    "!" * 300 + "a" * 300 + " " * 300 + "\n" * 300 + "é" * 300,
)

Ids = npt.NDArray[np.uint32]


class Tokenizer:
    """Encodes text to ids and back.

    Args:
        end: name of the special token that ends every document.

    Attributes:
        vocab_size: number of ids; every id is smaller.
        specials: names and ids of all special tokens, by id.
        whole_words: names of tokens that were added and are no specials; they are found in any
            text, whole.
        end_id: id of `end`.
        chat_ids: ids of `<|im_start|>` and `<|im_end|>`; that of `end` alone where the tokenizer
            lacks them.
        splitter: name under which llama.cpp knows how text is cut into words, "" where it does not.
    """

    def __init__(self, engine: tokenizers.Tokenizer, end: str = END) -> None:
        # Without this, `tokenizers` turns the text "<|im_end|>" of a document into the special
        # token.
        engine.encode_special_tokens = True
        self._engine = engine
        # Ids may have gaps between them.
        self.vocab_size: int = max(engine.get_vocab().values(), default=-1) + 1
        added = sorted(engine.get_added_tokens_decoder().items())
        self.specials: dict[str, int] = {
            token.content: index for index, token in added if token.special
        }
        self.whole_words = frozenset(token.content for _, token in added if not token.special)
        if end not in self.specials:
            raise ValueError(f"it has no special token {end}")
        self.end, self.end_id = end, self.specials[end]
        self.chat_ids = (
            tuple(self.specials[token] for token in CHAT)
            if self.specials.keys() >= set(CHAT)
            else (self.end_id,)
        )
        self.splitter = splitter(engine)
        self._cuts = safe_cuts(self.splitter)

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read `folder/tokenizer.json`, and which token ends a document from the
        tokenizer_config.json beside it.

        Raises:
            GroundupError: the file is missing or not a tokenizer of ours.
        """
        try:
            return cls(tokenizers.Tokenizer.from_file(str(folder / FILE)), _end_of(folder))
        except Exception as error:  # tokenizers raises plain Exception
            raise GroundupError(
                f"{folder / FILE}: cannot be read as a tokenizer: {error}"
            ) from None

    @property
    def stop_id(self) -> int:
        """Id that ends an answer: `<|im_end|>`, or the end of a text."""
        return self.chat_ids[-1]

    def special_name(self, index: int) -> str:
        """Return the name of a special token."""
        return next(name for name, own in self.specials.items() if own == index)

    @property
    def keeps_all(self) -> bool:
        """Whether decoding gives back a text that is not in normal form, too."""
        return self._engine.normalizer is None

    def normalized(self, text: str) -> str:
        """Return what decoding the ids of a text gives: the text itself, or its normal form."""
        normalizer = self._engine.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special token."""
        return [int(i) for i in self.encode_batch([text])[0]]

    def encode_batch(
        self, texts: Sequence[str] | pa.StringArray
    ) -> tuple[Ids, npt.NDArray[np.int64]]:
        """Return the ids of all texts one after the other, and the number of ids of each text."""
        plain: Sequence[str] = texts.to_pylist() if isinstance(texts, pa.Array) else texts
        lengths = np.zeros(len(plain), np.int64)
        flat: list[Ids] = []
        for group in _groups(
            (row, piece)
            for row, text in enumerate(plain)
            for piece in pieces(text, cuts=self._cuts)
        ):
            encoded = self._engine.encode_batch_fast(
                [piece for _, piece in group], add_special_tokens=False
            )
            ids = [np.array(one.ids, np.uint32) for one in encoded]
            np.add.at(lengths, [row for row, _ in group], [len(one) for one in ids])
            flat += ids
        return np.concatenate(flat) if flat else np.empty(0, np.uint32), lengths

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, specials as they are written; bytes that are not UTF-8 become
        U+FFFD.
        """
        return str(self._engine.decode([int(i) for i in ids], skip_special_tokens=False))

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """Return the number of UTF-8 bytes that each id stands for, [vocab_size]; specials stand
        for none.

        No byte is lost on the way: so the lengths of a document's tokens add up to its size.
        """
        sizes = np.array([len(string) for string in self.byte_strings()], np.int64)
        sizes[list(self.specials.values())] = 0
        return sizes

    def names(self) -> list[str]:
        """Return the name of each id, [vocab_size]; "" where no token has it."""
        found = [""] * self.vocab_size
        for token, index in self._engine.get_vocab().items():
            found[index] = token
        return found

    def byte_strings(self) -> list[bytes]:
        """Return the UTF-8 bytes that each id stands for, [vocab_size]; specials as they are
        written.
        """
        alphabet = _byte_alphabet()
        found = [b""] * self.vocab_size
        for token, index in self._engine.get_vocab().items():
            # As `decode` has it: a name with a character that stands for no byte was added as it
            # is.
            found[index] = (
                bytes(map(alphabet.__getitem__, token))
                if alphabet.keys() >= set(token)
                else token.encode()
            )
        return found

    def first(self, vocab_size: int) -> Tokenizer:
        """Return the tokenizer that has only the first `vocab_size` ids: what BPE had learned when
        it was that large.

        Raises:
            ValueError: it would lack a byte or a special, or have more ids than this one.
        """
        table = json.loads(self._engine.to_str())
        vocab, merges = table["model"]["vocab"], table["model"]["merges"]
        if not len(vocab) - len(merges) <= vocab_size <= self.vocab_size:
            raise ValueError(
                f"vocab_size {vocab_size} must lie between {len(vocab) - len(merges)} and"
                f" {self.vocab_size}"
            )
        kept = {token: index for token, index in vocab.items() if index < vocab_size}
        # Merges stand in the order in which they were learned, and each made the next id.
        table["model"] |= {
            "vocab": kept,
            "merges": list(itertools.takewhile(lambda pair: "".join(pair) in kept, merges)),
        }
        return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(table)), self.end)


class Detokenizer:
    """Text of ids that come one by one, in whole characters; the pieces and `end()` together are
    `decode` of all ids.

    Args:
        byte_strings: those of the tokenizer.
    """

    def __init__(self, byte_strings: Sequence[bytes]) -> None:
        self._strings = byte_strings
        # Python and `tokenizers` agree on how many U+FFFD stand for broken bytes: one for each
        # maximal part of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """Return the text that is settled by one more id; "" while a character is not whole."""
        # A model may have more ids than its tokenizer, for its sizes' sake; those stand for
        # nothing.
        return self._decoder.decode(self._strings[token] if token < len(self._strings) else b"")

    @property
    def pending(self) -> bool:
        """Whether a character has begun and is not whole."""
        return bool(self._decoder.getstate()[0])

    def end(self) -> str:
        """Return U+FFFD for a character that will never be whole, else nothing."""
        return self._decoder.decode(b"", final=True)


def _byte_alphabet() -> dict[str, int]:
    """Return the byte for each character of a token's name: a byte is itself where that prints,
    else U+0100 and on (GPT-2).
    """
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(0x100)) - set(printing))
    return {chr(byte): byte for byte in printing} | {
        chr(0x100 + n): byte for n, byte in enumerate(others)
    }


def pieces(
    text: str, limit: int = PIECE_CHARACTERS, cuts: re.Pattern[str] = AT_SPACES_AND_LINES
) -> Iterator[str]:
    """Yield `text` in pieces of at most `limit` characters, cut at `cuts`, where the splitter cuts
    too.

    The ids of the pieces are those of the text, except for a stretch of more than `limit`
    characters without any safe
    place: it is cut at `limit`. That bounds time and memory: on 10 million spaces the splitter of
    `tokenizers` gives up with a panic ("retry-limit-in-match over"), so there is no right answer to
    miss. The round trip stays exact.
    """
    start = 0
    while len(text) - start > limit:
        cut = _last_cut(text, start + 1, start + limit, cuts)
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]


def _last_cut(text: str, low: int, high: int, places: re.Pattern[str]) -> int:
    # Nearly always there is a cut among the last thousand characters; the second look is for data
    # without spaces.
    for first in (max(low, high - 1000), low):
        cuts = [match.start() for match in places.finditer(text, first, high)]
        if cuts:
            return cuts[-1]
    return high


def _groups(items: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Collect pieces into groups of at most BATCH_CHARACTERS."""
    group: list[tuple[int, str]] = []
    size = 0
    for row, piece in items:
        if group and size + len(piece) > BATCH_CHARACTERS:
            yield group
            group, size = [], 0
        group.append((row, piece))
        size += len(piece)
    if group:
        yield group


def _end_of(folder: Path) -> str:
    """Return the token that ends a document: ours is the padding too, and stays that when
    `eos_token` ends an answer.
    """
    path = folder / CONFIG
    return (
        str(json.loads(path.read_text(encoding="utf-8")).get("pad_token", END))
        if path.exists()
        else END
    )


def write_config(
    folder: Path, context: int, end: str = END, others: Sequence[str] = SPECIALS[1:]
) -> None:
    """Write the tokenizer_config.json that makes transformers give the same ids.

    The class must be PreTrainedTokenizerFast: for a Qwen class (or a Qwen3 folder without one)
    transformers 5 builds Qwen's own splitter and NFC normalizer in place of what tokenizer.json
    says, and the ids differ without a word.

    Args:
        end: the token that ends a document; `others` are all other special tokens.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_eos_token": False,
        "eos_token": end,
        "pad_token": end,
        "additional_special_tokens": list(others),
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
