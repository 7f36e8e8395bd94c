"""A byte-level BPE tokenizer: text ↔ ids, exact for every valid string.

    tokenizer = Tokenizer.load(root / "tokenize")
    ids = tokenizer.encode("The cat")             # [464, 3797]
    tokenizer.decode(ids)                         # "The cat"

Encoding works in two steps. The pretokenizer (here: splitter) cuts a text into words with a regular
expression; BPE then merges the bytes of each word into tokens (Sennrich et al. 2016, arXiv
1508.07909; on bytes since GPT-2, Radford et al. 2019):

    "The cat's 12"
      │ splitter: a regular expression
    "The"  " cat"  "'s"  " "  "1"  "2"
      │ BPE: bytes, merged pair by pair in the order in which the merges were learned
    T h e → Th e → The        ␣ c a t → ␣c at → ␣cat
      │ vocabulary
    464    3797    …

Other modules rely on three properties:

* `decode(encode(text)) == text` for any valid Unicode: there is no normalizer, and all 256 bytes
  are tokens. (Some pretrained tokenizers normalize to NFC; refined text is in NFC already.)
* Text never yields a special token. "<|im_end|>" in a document is ordinary text; only the code that
  builds chats or ends documents inserts special ids.
* Tokenizers trained here use Qwen2's splitter, under the name that llama.cpp and transformers know.
"""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tokenizers

from groundup.artifacts.arrays import lengths as lengths_of
from groundup.artifacts.arrays import mask, text_buffers
from groundup.errors import GroundupError
from groundup.runtime.progress import say

if TYPE_CHECKING:
    from groundup.artifacts.bpe_encoder import BpeEncoder

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"

END = "<|endoftext|>"
CHAT = ("<|im_start|>", "<|im_end|>")
# They come first in the vocabulary. So their ids are 0, 1 and 2 for any number of merges, and a
# smaller vocabulary is a prefix of a larger one that was trained on the same text.
SPECIALS = (END, *CHAT)

# The splitter of Qwen2 to Qwen3 (huggingface.co/Qwen): contractions, words with one leading
# character, single digits, punctuation with its line breaks, white space.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Llama 3's takes up to three digits together.
LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

# Places where these two always cut, whatever is further left or right: before a space that follows
# a visible character (no alternative of a pattern takes a space after one), and after a newline
# before a letter, digit or underscore (white space that ends in a newline never joins what
# follows). So pieces that are cut there encode to the same ids.
AT_SPACES_AND_LINES = re.compile(r"(?<=[\w!-~])(?= )|(?<=\n)(?=\w)")
# GPT-2's leaves the last of several newlines to the word after them, so it cannot be cut there.
AT_SPACES = re.compile(r"(?<=[\w!-~])(?= )")

# Longer texts are encoded in pieces, and pieces in batches of limited size: `tokenizers` keeps
# about 150 bytes per token until its Python object is released.
PIECE_CHARACTERS = 1 << 18
BATCH_CHARACTERS = 1 << 21

# Texts that tokenizers get wrong: normalizers, special tokens in text, splitters that differ in one
# class of characters. Exported and pretrained tokenizers are checked with them.
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

# Text that NFC leaves as it is, by alphabets in use: none of it joins with what is around it. Texts
# with other characters go through a normalizer.
_STABLE = (
    r"\x00-\x{2ff}\x{388}-\x{3ff}\x{400}-\x{482}\x{48a}-\x{52f}\x{5d0}-\x{5ea}\x{621}-\x{64a}"
    r"\x{200b}-\x{2027}\x{2030}-\x{205e}\x{20a0}-\x{20bf}\x{2190}-\x{2328}\x{2400}-\x{2ad0}"
    r"\x{3000}-\x{3029}\x{3041}-\x{3096}\x{30a1}-\x{30fa}\x{4e00}-\x{9fff}\x{ac00}-\x{d7a3}"
    r"\x{fe0f}\x{ff01}-\x{ff60}\x{1f300}-\x{1faff}"
)

# The names of tokens spell a byte as the character itself if that is printable, else as U+0100 and
# on (GPT-2).
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTE_OF = {chr(byte): byte for byte in _PRINTABLE}
_BYTE_OF |= {chr(0x100 + n): b for n, b in enumerate(sorted({*range(0x100)} - {*_PRINTABLE}))}
BYTE_NAMES = tuple(sorted(_BYTE_OF, key=_BYTE_OF.__getitem__))

# Shorter texts are not worth the import of numba.
FAST_BYTES = 1 << 20

Ids = npt.NDArray[np.uint32]


_QWEN2, _LLAMA3 = (
    {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    for regex in (QWEN2_PATTERN, LLAMA3_PATTERN)
)
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_GPT2 = _BYTES | {"use_regex": True}
# Splitters that llama.cpp has compiled in, by its name for them: their parts, and whether a word
# that is a token is taken whole before any merge.
_LLAMA_CPP: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "qwen2": ([_QWEN2, _BYTES], False),
    "llama-bpe": ([_LLAMA3, _BYTES], True),
    "gpt-2": ([_GPT2], False),
    "smollm": ([{"type": "Digits", "individual_digits": True}, _GPT2], False),
}


def splitter_parts(engine: tokenizers.Tokenizer) -> list[dict[str, Any]]:
    """Return the parts of an engine's splitter as in tokenizer.json, without offset settings."""
    if engine.pre_tokenizer is None:
        return []
    table = json.loads(engine.pre_tokenizer.__getstate__())
    parts = table["pretokenizers"] if table["type"] == "Sequence" else [table]
    return [{key: value for key, value in part.items() if key != "trim_offsets"} for part in parts]


class Tokenizer:
    """Encodes text to ids and back; `end` names the special token that ends every document."""

    def __init__(self, engine: tokenizers.Tokenizer, end: str = END) -> None:
        # Else `tokenizers` turns the text "<|im_end|>" of a document into the special token.
        engine.encode_special_tokens = True
        self._engine = engine
        # Every id is smaller; there may be gaps between ids.
        self.vocab_size: int = max(engine.get_vocab().values(), default=-1) + 1
        added = sorted(engine.get_added_tokens_decoder().items())
        self.specials = {token.content: int(index) for index, token in added if token.special}
        # Added tokens that are not special are found in any text, whole.
        self.whole_words = frozenset(token.content for _, token in added if not token.special)
        if end not in self.specials:
            raise ValueError(f"it has no special token {end}")
        self.end, self.end_id = end, self.specials[end]
        # Of `<|im_start|>` and `<|im_end|>`; only that of `end` if they are missing.
        chat = CHAT if self.specials.keys() >= set(CHAT) else (end,)
        self.chat_ids = tuple(self.specials[token] for token in chat)
        # The name under which llama.cpp knows the splitter, "" if it does not.
        known = splitter_parts(engine), bool(getattr(engine.model, "ignore_merges", False))
        self.splitter = next((name for name, value in _LLAMA_CPP.items() if value == known), "")
        # Nearly all splitters cut before spaces, also unknown ones.
        cuts_lines = self.splitter in ("qwen2", "llama-bpe")
        self._cuts = AT_SPACES_AND_LINES if cuts_lines else AT_SPACES
        # Built for the first large batch.
        self._seen_bytes = 0
        self._encoder: BpeEncoder | Literal[False] | None = None

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read tokenizer.json, and the token that ends a document from tokenizer_config.json.

        Raises GroundupError if a file is missing or cannot be used.
        """
        config = folder / CONFIG
        try:
            # The padding token ends a document; `eos_token` may end an answer instead.
            table = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
            end = str(table.get("pad_token", END))
            return cls(tokenizers.Tokenizer.from_file(str(folder / FILE)), end)
        except Exception as error:
            # tokenizers raises plain Exception.
            why = f"cannot be read as a tokenizer: {error}"
            raise GroundupError(f"{folder / FILE}: {why}") from None

    @property
    def stop_id(self) -> int:
        """Id that ends an answer: `<|im_end|>`, or the end of a text."""
        return self.chat_ids[-1]

    def special_name(self, index: int) -> str:
        """Return the name of a special token."""
        return next(name for name, special in self.specials.items() if special == index)

    @property
    def keeps_all(self) -> bool:
        """Whether text that is not normalized survives a round trip, too."""
        return self._engine.normalizer is None

    def normalized(self, text: str) -> str:
        """Return what decoding the ids of a text gives: the text itself, or its NFC."""
        return text if self.keeps_all else str(self._engine.normalizer.normalize_str(text))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special token."""
        return [int(i) for i in self.encode_batch([text])[0]]

    def encode_batch(
        self, texts: Sequence[str] | pa.StringArray
    ) -> tuple[Ids, npt.NDArray[np.int64]]:
        """Return the ids of all texts one after the other, and the number of ids of each text.

        Large arrays are encoded without an object for each text.
        """
        if not isinstance(texts, pa.Array):
            return self._encode_texts(texts)
        self._seen_bytes += int(lengths_of(texts).sum())
        if self._encoder is None and self._seen_bytes >= FAST_BYTES:
            self._encoder = self._fast_encoder()
        if not self._encoder:
            return self._encode_texts(texts.to_pylist())
        changed = self._changed_rows(texts)
        if not changed.any():
            return self._encode_array(self._encoder, texts)
        lengths = np.zeros(len(texts), np.int64)
        slow, lengths[changed] = self._encode_texts(texts.filter(pa.array(changed)).to_pylist())
        fast, lengths[~changed] = self._encode_array(
            self._encoder, texts.filter(pa.array(~changed))
        )
        ids, of_changed = np.empty(len(slow) + len(fast), np.uint32), np.repeat(changed, lengths)
        ids[of_changed], ids[~of_changed] = slow, fast
        return ids, lengths

    def _encode_texts(self, texts: Sequence[str]) -> tuple[Ids, npt.NDArray[np.int64]]:
        """Encode with `tokenizers`, the reference."""
        lengths, flat = np.zeros(len(texts), np.int64), [np.empty(0, np.uint32)]
        rows = enumerate(texts)
        cut = ((row, piece) for row, text in rows for piece in pieces(text, cuts=self._cuts))
        for batch in _batches(cut):
            parts = [piece for _, piece in batch]
            encodings = self._engine.encode_batch_fast(parts, add_special_tokens=False)
            ids = [np.array(encoding.ids, np.uint32) for encoding in encodings]
            np.add.at(lengths, [row for row, _ in batch], [len(part) for part in ids])
            flat += ids
        return np.concatenate(flat), lengths

    def _encode_array(
        self, encoder: BpeEncoder, texts: pa.StringArray
    ) -> tuple[Ids, npt.NDArray[np.int64]]:
        """Encode an array with our encoder, long texts in pieces."""
        offsets, data = text_buffers(texts)
        cut = {
            int(row): list(byte_pieces(data, offsets[row], offsets[row + 1], cuts=self._cuts))
            for row in np.flatnonzero(np.diff(offsets) > PIECE_CHARACTERS)
        }
        first = np.arange(len(texts))
        for row, ends in cut.items():
            first[row + 1 :] += len(ends)
        places = [place for ends in cut.values() for place in ends]
        bounds = np.sort(np.concatenate([offsets, np.array(places, np.int32)]))
        ids, lengths = encoder.encode(bounds, data)
        # Each text has a piece or more.
        return ids, np.add.reduceat(lengths, first) if len(first) else lengths

    def _changed_rows(self, texts: pa.StringArray) -> npt.NDArray[np.bool_]:
        """Tell which texts a normalizer or an added token may change before words are cut."""
        patterns = [re.escape(word) for word in self.whole_words]
        if not self.keeps_all:
            patterns.append(f"[^{_STABLE}]")
        if not patterns:
            return np.zeros(len(texts), np.bool_)
        return mask(pc.match_substring_regex(texts, "|".join(patterns)))

    def _fast_encoder(self) -> BpeEncoder | Literal[False]:
        """Return an encoder that gives the ids of `tokenizers`, False if there is none."""
        # Late: it imports numba.
        from groundup.artifacts.bpe_encoder import encoder_of

        parts = splitter_parts(self._engine)
        names = [name for name, (known, _) in _LLAMA_CPP.items() if known == parts]
        encoder = encoder_of(self._engine, names[0], _BYTE_OF) if names else None
        if encoder is None:
            return False
        texts = pa.array(PROBES)
        texts = texts.filter(pa.array(~self._changed_rows(texts)))
        fast, _ = self._encode_array(encoder, texts)
        right, _ = self._encode_texts(texts.to_pylist())
        agrees = encoder.splitter.agrees(self._engine.pre_tokenizer)
        if not (agrees and np.array_equal(fast, right)):
            say(
                "tokenizer: the fast encoder does not give the ids of tokenizers "
                f"{tokenizers.__version__}, which encodes instead, at a fiftieth of the speed"
            )
            return False
        return encoder

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, special tokens by name; invalid UTF-8 becomes U+FFFD."""
        return str(self._engine.decode([int(i) for i in ids], skip_special_tokens=False))

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """Return the number of UTF-8 bytes of each id, [vocab_size]; 0 for special tokens.

        The tokens of a document add up to its size in bytes.
        """
        sizes = np.array([len(string) for string in self.byte_strings()], np.int64)
        sizes[list(self.specials.values())] = 0
        return sizes

    def names(self) -> list[str]:
        """Return the name of each id, [vocab_size]; "" for a gap."""
        names = [""] * self.vocab_size
        for token, index in self._engine.get_vocab().items():
            names[index] = token
        return names

    def byte_strings(self) -> list[bytes]:
        """Return the UTF-8 bytes of each id, [vocab_size]; special tokens by name."""
        strings = []
        for name in self.names():
            # As `decode` does: a name with any other character was added as plain text.
            spelled = _BYTE_OF.keys() >= set(name)
            strings.append(bytes(map(_BYTE_OF.__getitem__, name)) if spelled else name.encode())
        return strings

    def first(self, vocab_size: int) -> Tokenizer:
        """Return the tokenizer of the first `vocab_size` ids, as BPE had learned it at that size.

        Raises ValueError if it would lack a byte or a special, or have more ids than this one.
        """
        table = json.loads(self._engine.to_str())
        vocab, merges = table["model"]["vocab"], table["model"]["merges"]
        smallest, largest = len(vocab) - len(merges), self.vocab_size
        if not smallest <= vocab_size <= largest:
            raise ValueError(f"vocab_size {vocab_size} must lie between {smallest} and {largest}")
        kept = {token: index for token, index in vocab.items() if index < vocab_size}
        # Merges are in the order in which they were learned, and each made the next id.
        learned = itertools.takewhile(lambda pair: "".join(pair) in kept, merges)
        table["model"] |= {"vocab": kept, "merges": list(learned)}
        return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(table)), self.end)


class Detokenizer:
    """Decodes ids one by one into whole characters.

    The pieces and `end()` together are `decode` of all ids.
    """

    def __init__(self, byte_strings: Sequence[bytes]) -> None:
        self._strings = byte_strings
        # Python and `tokenizers` agree on the U+FFFD for broken bytes: one for each maximal part
        # of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """Return the text that one more id completes; "" in the middle of a character."""
        # A model may have more ids than its tokenizer, to round its sizes up; those have no text.
        return self._decoder.decode(self._strings[token] if token < len(self._strings) else b"")

    @property
    def pending(self) -> bool:
        """Whether a character has begun and is not complete."""
        return bool(self._decoder.getstate()[0])

    def end(self) -> str:
        """Return U+FFFD for a character that was never completed, else nothing."""
        return self._decoder.decode(b"", final=True)


def pieces(
    text: str, limit: int = PIECE_CHARACTERS, cuts: re.Pattern[str] = AT_SPACES_AND_LINES
) -> Iterator[str]:
    """Yield `text` in pieces of at most `limit` characters, cut where the splitter cuts anyway.

    The ids of the pieces are those of the text, except for a stretch of more than `limit`
    characters without such a place: it is cut at `limit`. That bounds time and memory. On 10
    million spaces the splitter of `tokenizers` panics ("retry-limit-in-match over"), so there are
    no right ids to miss; the round trip stays exact.
    """
    start = 0
    while len(text) - start > limit:
        end = start + limit
        # Nearly always there is a cut among the last thousand characters; the second range is for
        # data without spaces.
        for first in (max(start + 1, end - 1000), start + 1):
            places = [match.start() for match in cuts.finditer(text, first, end)]
            if places:
                end = places[-1]
                break
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def byte_pieces(
    data: npt.NDArray[np.uint8],
    begin: int,
    end: int,
    limit: int = PIECE_CHARACTERS,
    cuts: re.Pattern[str] = AT_SPACES_AND_LINES,
) -> Iterator[int]:
    """Yield where the pieces of the text data[begin:end] end, without the end of the last one."""
    while end - begin > limit:
        window = data[begin : min(begin + 4 * (limit + 1), end)]
        text = codecs.utf_8_decode(window.tobytes(), "strict", False)[0]
        if len(text) <= limit:
            return
        # The first piece does not depend on what follows it.
        begin += len(next(pieces(text[: limit + 1], limit, cuts)).encode())
        yield begin


def _batches(items: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Collect pieces into batches of at most BATCH_CHARACTERS."""
    batch: list[tuple[int, str]] = []
    size = 0
    for row, piece in items:
        if batch and size + len(piece) > BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
        batch.append((row, piece))
        size += len(piece)
    if batch:
        yield batch


def write_config(
    folder: Path, context: int, end: str = END, others: Sequence[str] = SPECIALS[1:]
) -> None:
    """Write the tokenizer_config.json with which transformers gives the same ids.

    The class must be PreTrainedTokenizerFast. For a Qwen class, or a Qwen3 folder without one,
    transformers 5 builds Qwen's own splitter and NFC normalizer instead of what tokenizer.json
    says, and the ids differ silently. `end` ends a document; `others` are all other specials.
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
