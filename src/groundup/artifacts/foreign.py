"""A tokenizer from elsewhere: can it be carried exactly? Reads the tokenizer.json of a model folder
and the names beside it.

Carried is byte-level BPE, with any splitter: no byte is lost, and text never yields a special
token. Writes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from groundup.artifacts.pretokenizers import parts
from groundup.artifacts.probe_texts import PROBES
from groundup.artifacts.tokenizer import CONFIG, END, FILE, Tokenizer
from groundup.errors import GroundupError
from groundup.model.hf_io import read_table

# Names that end a text wherever they are; in a model that chats, `eos_token` ends an answer
# instead.
ENDS = (END, "<|end_of_text|>", "</s>")
_HINT = (
    "transformers writes one: AutoTokenizer.from_pretrained(FOLDER,"
    " use_fast=True).save_pretrained(FOLDER)"
)


@dataclass(frozen=True)
class Foreign:
    """A tokenizer that can be carried.

    Attributes:
        data: its tokenizer.json; as it was found, but for what would put tokens around a text or
            cut it off.
    """

    tokenizer: Tokenizer
    data: bytes


def read_tokenizer(folder: Path) -> Foreign:
    """Return the tokenizer of a model folder.

    Raises:
        GroundupError: it is missing, or cannot be carried exactly.
    """
    path = folder / FILE
    if not path.exists():
        raise GroundupError(
            f"{path}: there is no such file, and no other kind of tokenizer is read; {_HINT}"
        )
    table = read_table(path)
    try:
        data = (
            json.dumps(_plain(table), ensure_ascii=False).encode()
            if _adds(table)
            else path.read_bytes()
        )
        engine = tokenizers.Tokenizer.from_buffer(data)
        _check_kind(engine, table)
        tokenizer = Tokenizer(engine, _end(folder, engine))
        check_specials(tokenizer)
        check_texts(tokenizer, [*PROBES, *_around(engine)])
    except (GroundupError, KeyboardInterrupt, SystemExit):
        raise
    except (
        BaseException
    ) as error:  # tokenizers raises plain Exception, and panics where a splitter searches too long
        raise GroundupError(
            f"{path}: cannot be carried exactly: {' '.join(str(error).split())[:300]}"
        ) from None
    return Foreign(tokenizer, data)


def _adds(table: dict[str, Any]) -> bool:
    """Whether tokens would be put around a text, or the text be cut off or filled up: documents
    have one end, and no more.
    """
    after = table.get("post_processor")
    kinds = (
        [part.get("type") for part in after.get("processors", [after])]
        if isinstance(after, dict)
        else []
    )
    return set(kinds) - {"ByteLevel"} != set() or any(
        table.get(name) for name in ("truncation", "padding")
    )


def _plain(table: dict[str, Any]) -> dict[str, Any]:
    return table | {"post_processor": None, "truncation": None, "padding": None}


def _check_kind(engine: tokenizers.Tokenizer, table: dict[str, Any]) -> None:
    """Raise ValueError unless this is byte-level BPE that loses nothing."""
    model, normalizer, decoder = (
        table["model"],
        table.get("normalizer") or {},
        table.get("decoder") or {},
    )
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback"):
        raise ValueError(
            "model is"
            f" {model.get('type')}{' with byte_fallback' * bool(model.get('byte_fallback'))}; only"
            " byte-level BPE is"
        )
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise ValueError(f"model.{name} is {model[name]!r}; only byte-level BPE without it is")
    if normalizer.get("type", "NFC") != "NFC":
        raise ValueError(f"normalizer is {normalizer['type']}; only none, or NFC, is")
    last = (parts(engine) or [{}])[-1]
    if (
        last.get("type") != "ByteLevel"
        or last.get("add_prefix_space")
        or decoder.get("type") != "ByteLevel"
    ):
        raise ValueError(
            "pre_tokenizer or decoder is not ByteLevel without a space put in front; only that is"
        )
    if not engine.get_vocab(with_added_tokens=False).keys() >= set(
        pre_tokenizers.ByteLevel.alphabet()
    ):
        raise ValueError("some byte is no token of its vocabulary")


def _end(folder: Path, engine: tokenizers.Tokenizer) -> str:
    """Return the special token that ends a text."""
    special = {
        token.content for token in engine.get_added_tokens_decoder().values() if token.special
    }
    config = read_table(folder / CONFIG) if (folder / CONFIG).exists() else {}
    named = config.get("eos_token")
    named = named.get("content") if isinstance(named, dict) else named
    found = next((name for name in (*ENDS, named) if name in special), None)
    if found is None:
        raise ValueError(
            f"no special token ends a text: neither {', '.join(ENDS)} nor the eos_token of {CONFIG}"
            f" ({named!r}) is one"
        )
    return str(found)


def check_specials(tokenizer: Tokenizer) -> None:
    """Raise ValueError when the name of a special token, as text, yields one."""
    for name in tokenizer.specials:
        if set(tokenizer.encode(name)) & set(tokenizer.specials.values()):
            raise ValueError(f"the text {name} yields a special token")


def _around(engine: tokenizers.Tokenizer) -> list[str]:
    """Return texts that hold the added tokens: some swallow the space beside them."""
    return [
        f"a {token.content} b\n{token.content}\n"
        for token in engine.get_added_tokens_decoder().values()
    ]


def check_texts(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Raise ValueError when a text does not come back as it was."""
    for text in texts:
        if tokenizer.decode(tokenizer.encode(text)) != tokenizer.normalized(text):
            raise ValueError(f"the text {text[:40]!r} does not come back as it was")
