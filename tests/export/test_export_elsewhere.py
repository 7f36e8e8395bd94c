"""What came in as a Llama goes out as one, with its tokenizer: the same logits, ids and ends in
transformers and in llama.cpp.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.helpers.exporting import FACTS, TEXT, needs_gguf, needs_llama, rows_of
from tests.helpers.hf_models import FAMILIES, write_folder

from groundup.errors import GroundupError
from groundup.export import gguf as gguf_file
from groundup.export import hf, llamacpp, parity
from groundup.export.source_model import SourceModel, read_source_model
from groundup.model.hf_io import load_model, save_model
from groundup.tokenize.adopt import adopt_tokenizer
from groundup.tune.finetuner import write_model

BASE = {"name": "elsewhere/`model`", "license": "mit"}


def source_of(folder: Path, layout: str, family: str, tied: bool) -> SourceModel:
    """A checkpoint of a training that went on from such a folder."""
    write_folder(folder / "in", layout, family, tied=tied)
    (folder / "step").mkdir()
    adopt_tokenizer(folder / "step", folder / "in", [])
    save_model(folder / "step", load_model(folder / "in"))
    return read_source_model(folder / "step", "step-000007", BASE)


CASES = [
    ("llama", "llama-bpe", False),
    ("llama", "smollm", True),
    ("qwen3", "qwen2", False),
    ("llama", "gpt-2", False),
]


@pytest.mark.parametrize(("layout", "family", "tied"), CASES)
def test_the_folder_is_the_same_model_to_transformers(
    tmp_path: Path, layout: str, family: str, tied: bool
) -> None:
    # Protects: guarantee 10 for models that came from elsewhere.
    pytest.importorskip("transformers", reason="needs transformers")
    source = source_of(tmp_path, layout, family, tied)
    (tmp_path / "hf").mkdir()
    hf.write_folder(tmp_path / "hf", source, "mine")
    found = parity.check(tmp_path / "hf", source, load_model(source.path), [TEXT], seed=1)
    assert found["max_difference"] < 1e-4 and found["ids"] > 400
    card = (tmp_path / "hf" / "README.md").read_text()
    assert f"| {layout.capitalize()} (rotary" in card and ("tied embeddings" in card) == tied
    assert (
        "trained on from the weights of `elsewhere/'model'` (license: `mit`)" in card
        and "scratch" not in card
    )


@needs_gguf
@needs_llama
@pytest.mark.parametrize(("layout", "family", "tied"), CASES)
def test_llama_cpp_says_the_same(tmp_path: Path, layout: str, family: str, tied: bool) -> None:
    # Protects: Llama's rows stand in another order there, its head is a tensor of its own, and its
    # splitter has another name.
    source = source_of(tmp_path, layout, family, tied)
    path, kind = tmp_path / "x.gguf", "q8_0" if tied else "f32"
    gguf_file.write_file(path, source, kind, FACTS)
    table = gguf_file.fields(path)
    assert table["general.architecture"] == layout and table["tokenizer.ggml.pre"] == family
    assert (
        table["general.base_model.0.name"] == BASE["name"]
        and "scratch" not in table["general.description"]
    )
    stored, found = gguf_file.check_file(path, source, kind)
    found |= llamacpp.check(path, source, kind, stored, rows_of(source), [TEXT])
    assert 0 < found["max_difference"] < found["allowed"] and found["ids"] > 400


@needs_gguf
@needs_llama
def test_rows_in_the_wrong_order_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Protects: the gates see what the order of rows does; without it llama.cpp computes something
    # else without complaint.
    source = source_of(tmp_path, "llama", "gpt-2", True)
    path = tmp_path / "x.gguf"
    with monkeypatch.context() as wrong:
        wrong.setattr(gguf_file, "interleaved_heads", lambda *_: 0)
        gguf_file.write_file(path, source, "f32", FACTS)
    with pytest.raises(GroundupError, match="are not those of the checkpoint"):
        gguf_file.check_file(path, source, "f32")
    monkeypatch.setattr(gguf_file, "interleaved_heads", lambda *_: 0)
    stored, _ = gguf_file.check_file(path, source, "f32")
    with pytest.raises(GroundupError, match=r"log-probabilities in llama\.cpp differ"):
        llamacpp.check(path, source, "f32", stored, rows_of(source), [TEXT])


@needs_gguf
@needs_llama
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tuned_one_chats_alike_everywhere(tmp_path: Path, family: str) -> None:
    # Protects: the chat form with and without ChatML's tokens, and the end of an answer, in both
    # programs.
    source = source_of(tmp_path, "llama", family, False)
    write_model(tmp_path / "model", load_model(source.path), source.path)
    tuned = read_source_model(tmp_path / "model", "tuned", BASE)
    gguf_file.write_file(tmp_path / "x.gguf", tuned, "f32", FACTS)
    stored, _ = gguf_file.check_file(tmp_path / "x.gguf", tuned, "f32")
    found = llamacpp.check(tmp_path / "x.gguf", tuned, "f32", stored, rows_of(tuned), [TEXT])
    assert found["chats"] == 3 and found["ends"] == len(source.tokenizer.chat_ids)
    shutil.rmtree(tmp_path / "in")
    (tmp_path / "hf").mkdir()
    hf.write_folder(tmp_path / "hf", tuned, "mine")
    assert (
        parity.check(tmp_path / "hf", tuned, load_model(tuned.path), [TEXT], seed=1)["chats"] == 3
    )


@needs_gguf
def test_a_splitter_that_llama_cpp_lacks_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Protects: no file that would cut words elsewhere.
    source = source_of(tmp_path, "llama", "gpt-2", True)
    monkeypatch.setattr(source.tokenizer, "splitter", "")
    with pytest.raises(GroundupError, match=r"llama\.cpp has no splitter"):
        gguf_file.write_file(tmp_path / "x.gguf", source, "f32", FACTS)
