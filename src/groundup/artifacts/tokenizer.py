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
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tokenizers

from groundup.errors import GroundupError

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
        """Return the ids of all texts one after the other, and the number of ids of each text."""
        plain: Sequence[str] = texts.to_pylist() if isinstance(texts, pa.Array) else texts
        lengths, flat = np.zeros(len(plain), np.int64), [np.empty(0, np.uint32)]
        rows = enumerate(plain)
        cut = ((row, piece) for row, text in rows for piece in pieces(text, cuts=self._cuts))
        for batch in _batches(cut):
            texts = [piece for _, piece in batch]
            encodings = self._engine.encode_batch_fast(texts, add_special_tokens=False)
            ids = [np.array(encoding.ids, np.uint32) for encoding in encodings]
            np.add.at(lengths, [row for row, _ in batch], [len(part) for part in ids])
            flat += ids
        return np.concatenate(flat), lengths

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
        # A name spells a byte as the character itself if that is printable, else as U+0100 and on
        # (GPT-2).
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = sorted(set(range(0x100)) - set(printable))
        byte_of = {chr(byte): byte for byte in printable}
        byte_of |= {chr(0x100 + n): byte for n, byte in enumerate(others)}
        strings = []
        for name in self.names():
            # As `decode` does: a name with any other character was added as plain text.
            spelled = byte_of.keys() >= set(name)
            strings.append(bytes(map(byte_of.__getitem__, name)) if spelled else name.encode())
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
