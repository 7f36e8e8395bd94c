"""GGUF: what the file holds is the model, what llama.cpp makes of it is too, and a file that says
something else is found.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import gguf
import pytest
import torch
from tests.helpers.exporting import (
    FACTS,
    TEXT,
    edit,
    needs_llama,
    random_model,
    rows_of,
    write_source_model,
    write_tokenizer,
)

from groundup.artifacts.tokenizer import FILE, Tokenizer
from groundup.errors import GroundupError
from groundup.export import gguf as gguf_file
from groundup.export import llamacpp, parity
from groundup.export.source_model import SourceModel, read_source_model
from groundup.model.hf_io import load_model

KINDS = ("f32", "f16", "bf16", "q8_0")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def source(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    return write_source_model(
        tmp_path_factory.mktemp("model"),
        tokenizer,
        random_model(Tokenizer.load(tokenizer).vocab_size),
    )


def export(source: SourceModel, path: Path, kind: str = "f32") -> Path:
    gguf_file.write_file(path, source, kind, FACTS)
    return path


def gate(path: Path, source: SourceModel, kind: str) -> dict[str, Any]:
    """Both gates, as the stage has them."""
    stored, found = gguf_file.check_file(path, source, kind)
    return found | llamacpp.check(path, source, kind, stored, rows_of(source), [TEXT])


@needs_llama
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_says_what_the_model_says(
    source: SourceModel, tmp_path: Path, kind: str
) -> None:
    """Weights, words, probabilities, continuations and the end of a text, in the file and in
    llama.cpp.
    """
    found = gate(export(source, tmp_path / "x.gguf", kind), source, kind)
    assert found["tensors"] == ({"f32": 24} if kind == "f32" else {kind: 15, "f32": 9})
    assert str(found["llama_cpp"]).startswith("xllamacpp")
    assert found["positions"] == 8 * 5 and found["ids"] > 400 and found["written"] > 50
    # A tolerance that let everything through would show nothing: 7 nats is what a uniform guess
    # costs here.
    assert 0 < found["max_difference"] < found["allowed"] < (0.01 if kind == "f32" else 2)


@needs_llama
@pytest.mark.parametrize(
    ("sizes", "kind", "tensors"),
    [
        ({"head_width": 64, "heads": 2, "kv_heads": 1}, "f16", {"f16": 15, "f32": 9}),
        (
            {"head_width": 128, "heads": 4, "kv_heads": 1, "width": 96},
            "q8_0",
            {"q8_0": 15, "f32": 9},
        ),
        ({"heads": 2, "kv_heads": 2, "layers": 1, "context": 300}, "bf16", {"bf16": 8, "f32": 5}),
        # Rows of 72 and 100 cannot be cut into blocks of 32; those of o_proj (64) can.
        ({"width": 72, "feed_forward": 100}, "q8_0", {"f16": 13, "q8_0": 2, "f32": 9}),
    ],
)
def test_shapes_of_models(
    tokenizer: Path, tmp_path: Path, sizes: dict[str, int], kind: str, tensors: dict[str, int]
) -> None:
    """Grouped heads, heads wider than the model's share, and rows that a block does not divide."""
    sizes = {"heads": 2, "kv_heads": 1} | sizes
    model = random_model(Tokenizer.load(tokenizer).vocab_size, **sizes)
    small = write_source_model(
        tmp_path / "model", tokenizer, model, rope_theta=model.config.rope_theta
    )
    assert gate(export(small, tmp_path / "x.gguf", kind), small, kind)["tensors"] == tensors


def swap_heads(folder: Path) -> None:
    """Exchange two query heads that share no key: every shape stays."""
    model = random_model(read_source_model(folder, "x").config.vocab_size)
    weight = model.get_parameter("model.layers.0.self_attn.q_proj.weight").data
    weight[:64], weight[64:] = weight[64:].clone(), weight[:64].clone()
    from groundup.model.hf_io import save_model

    save_model(folder, model)


def interleave(folder: Path) -> None:
    """Order the rows as for the other kind of rotary positions, as converters of other
    architectures must.
    """
    model = random_model(read_source_model(folder, "x").config.vocab_size)
    for name, parameter in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            halves = parameter.data.view(-1, 2, 16, 64)
            parameter.data = halves.transpose(1, 2).reshape(parameter.shape)
    from groundup.model.hf_io import save_model

    save_model(folder, model)


def swap_words(folder: Path) -> None:
    """Exchange the ids of two single letters."""
    table = json.loads((folder / FILE).read_text())
    vocab = table["model"]["vocab"]
    vocab["e"], vocab["t"] = vocab["t"], vocab["e"]
    (folder / FILE).write_text(json.dumps(table))


def lose_merges(folder: Path) -> None:
    table = json.loads((folder / FILE).read_text())
    table["model"]["merges"] = table["model"]["merges"][5:]
    (folder / FILE).write_text(json.dumps(table))


DAMAGES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "heads": (swap_heads, "are not those of the checkpoint", "log-probabilities"),
    "rotary order": (interleave, "are not those of the checkpoint", "log-probabilities"),
    "rotary base": (
        lambda folder: edit(folder / "config.json", rope_theta=500.0),
        "rope.freq_base",
        "log-probabilities",
    ),
    "epsilon": (
        lambda folder: edit(folder / "config.json", rms_norm_eps=0.1),
        "rms_epsilon",
        "log-probabilities",
    ),
    "words": (swap_words, "other tokens", "tokenizes"),
    "merges": (lose_merges, "other merges", "tokenizes"),
}


@needs_llama
@pytest.mark.parametrize("damage", DAMAGES)
def test_each_gate_finds_what_is_wrong(source: SourceModel, tmp_path: Path, damage: str) -> None:
    """A file of a damaged model loads without complaint; reading it back finds it, and so does
    llama.cpp by itself.
    """
    change, written, said = DAMAGES[damage]
    for path in source.path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    change(tmp_path)
    path = export(read_source_model(tmp_path, "damaged"), tmp_path / "x.gguf", "q8_0")
    with pytest.raises(GroundupError, match=written):
        gguf_file.check_file(path, source, "q8_0")
    stored, _ = gguf_file.check_file(export(source, tmp_path / "good.gguf", "q8_0"), source, "q8_0")
    with pytest.raises(GroundupError, match=f"llama.cpp {said}|{said} in llama.cpp"):
        llamacpp.check(path, source, "q8_0", stored, rows_of(source), [TEXT])


@needs_llama
def test_another_splitter_is_found(
    source: SourceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a wrong name llama.cpp cuts words elsewhere, and says nothing.

    (Not so under "llama-bpe": it differs in runs of digits alone, and no merge of ours crosses from
    one digit to the next.)
    """
    with monkeypatch.context() as wrong:
        wrong.setattr(source.tokenizer, "splitter", "gpt-2")
        path = export(source, tmp_path / "x.gguf")
    with pytest.raises(GroundupError, match=r"tokenizer\.ggml\.pre"):
        gguf_file.check_file(path, source, "f32")
    monkeypatch.setattr(source.tokenizer, "splitter", "gpt-2")
    stored, _ = gguf_file.check_file(path, source, "f32")
    with pytest.raises(GroundupError, match=r"llama\.cpp tokenizes"):
        llamacpp.check(path, source, "f32", stored, rows_of(source), [TEXT])


@needs_llama
def test_an_end_that_does_not_end_is_found(source: SourceModel, tmp_path: Path) -> None:
    """A chat that never stops: the id that should end a text is an ordinary one."""
    with llamacpp.opened(export(source, tmp_path / "x.gguf"), 64) as llama:
        model = load_model(source.path)
        assert llamacpp.compare_continuations(llama, source, model, [], 0)["ends"] == 1
        plain = SourceModel(
            source.path,
            "x",
            source.table,
            source.settings,
            {"eos_token_id": source.tokenizer.encode("a")[0]},
        )
        with pytest.raises(GroundupError, match="goes on after id"):
            llamacpp.compare_continuations(llama, plain, model, [], 0)


def test_names_are_those_of_the_library(source: SourceModel) -> None:
    """Our table of tensors agrees with the one that llama.cpp's own converter uses."""
    layouts: dict[Any, Literal["qwen3", "llama"]]
    layouts = {gguf.MODEL_ARCH.QWEN3: "qwen3", gguf.MODEL_ARCH.LLAMA: "llama"}
    for architecture, layout in layouts.items():
        config = dataclasses.replace(source.config, layers=3, layout=layout, tied=False)
        names = gguf.get_tensor_name_map(architecture, 3)
        for ours, theirs in gguf_file.tensor_names(config).items():
            assert names.get_name(ours, try_suffixes=(".weight",)) == theirs
        assert gguf.MODEL_ARCH_NAMES[architecture] == layout


@needs_llama
@pytest.mark.parametrize(
    "name",
    ["naïve 中文 👩‍👧", 'a"b\\c\n\t\x1b[31m', "nul\0nul", "x" * 100_000, "{{ 7*7 }} {% raw %}", ""],
)
def test_hostile_names_stay_names(source: SourceModel, tmp_path: Path, name: str) -> None:
    """Metadata is data: any text comes back as it was, and llama.cpp still loads the file."""
    path = tmp_path / "x.gguf"
    gguf_file.write_file(
        path, source, "f16", {"name": name, "license": name, "sources": [name or "s", "b"]}
    )
    table = gguf_file.fields(path)
    assert table.get("general.name", "") == name and table["general.dataset.0.name"] == (
        name or "s"
    )
    with llamacpp.opened(path, 64) as llama:
        assert llama.ids("the cat") == source.tokenizer.encode("the cat")


@needs_llama
def test_a_vocabulary_of_bytes_alone(tokenizer: Path, tmp_path: Path) -> None:
    """Text without a repeated pair teaches no merge, and llama.cpp refuses a file without a list of
    them.
    """
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer_config.json").write_bytes(
        (tokenizer / "tokenizer_config.json").read_bytes()
    )
    table = json.loads((tokenizer / FILE).read_text(encoding="utf-8"))
    bytes_alone = {name: i for name, i in table["model"]["vocab"].items() if i < 259}
    table["model"] |= {"vocab": bytes_alone, "merges": []}
    (folder / FILE).write_text(json.dumps(table), encoding="utf-8")
    small = write_source_model(tmp_path / "model", folder, random_model(259))
    assert small.vocabulary[1] == []
    found = gate(export(small, tmp_path / "x.gguf"), small, "f32")
    assert found["merges"] == 0 and found["llama_cpp"]


@needs_llama
def test_a_model_with_more_ids_than_words(tokenizer: Path, tmp_path: Path) -> None:
    """Rows of the embedding beyond the vocabulary become unused tokens."""
    vocab_size = Tokenizer.load(tokenizer).vocab_size
    padded = write_source_model(tmp_path / "model", tokenizer, random_model(vocab_size + 5))
    path = export(padded, tmp_path / "x.gguf")
    assert gguf_file.fields(path)["tokenizer.ggml.tokens"][vocab_size] == f"[PAD{vocab_size}]"
    assert gate(path, padded, "f32")["llama_cpp"]


def test_a_weight_too_large_for_f16_is_one_line(tokenizer: Path, tmp_path: Path) -> None:
    model = random_model(Tokenizer.load(tokenizer).vocab_size)
    model.get_parameter("model.layers.1.mlp.up_proj.weight").data[3, 4] = 70_000
    large = write_source_model(tmp_path / "model", tokenizer, model)
    with pytest.raises(
        GroundupError, match=r"blk\.1\.ffn_up\.weight holds a weight beyond 65,504.*bf16"
    ):
        export(large, tmp_path / "x.gguf", "f16")
    gguf_file.check_file(export(large, tmp_path / "y.gguf", "bf16"), large, "bf16")
    model.model.norm.weight.data[0] = torch.nan
    broken = write_source_model(tmp_path / "model", tokenizer, model)
    with pytest.raises(
        GroundupError, match=r"output_norm\.weight holds a weight that is no finite number"
    ):
        export(broken, tmp_path / "x.gguf", "f32")


def test_rounding_is_bounded_and_tight() -> None:
    """The bound of q8_0 holds for every block, is nearly reached, and f16 and bf16 are compared
    exactly.
    """
    weight = (
        torch.randn(64, 128, generator=torch.Generator().manual_seed(1))
        * torch.logspace(-9, 4, 64)[:, None]
    )
    stored = gguf.dequantize(
        gguf.quantize(weight.numpy(), gguf.GGMLQuantizationType.Q8_0),
        gguf.GGMLQuantizationType.Q8_0,
    )
    found = torch.from_numpy(stored)
    gguf_file.compare_weight("x", "q8_0", weight, found)
    with pytest.raises(GroundupError, match="are not those of the checkpoint"):
        gguf_file.compare_weight("x", "q8_0", weight, weight + (found - weight) / 0.8)
    wrong = found.clone()
    # From any place within the bound, of a little more than half a step, to outside of it.
    wrong[63, 100] += 1.24 * weight[63, 96:].abs().max() / 127
    with pytest.raises(GroundupError, match="1 of 8192 weights of x"):
        gguf_file.compare_weight("x", "q8_0", weight, wrong)
    for kind, rounded in (("f16", torch.float16), ("bf16", torch.bfloat16)):
        exact = (weight / 1e3).to(rounded).float()
        gguf_file.compare_weight("x", kind, weight / 1e3, exact)
        exact[5, 5] = torch.nextafter(
            exact[5, 5].to(rounded), torch.tensor(9e9, dtype=rounded)
        ).float()
        with pytest.raises(GroundupError, match="1 of 8192"):
            gguf_file.compare_weight("x", kind, weight / 1e3, exact)


def test_a_finer_type_is_allowed_less() -> None:
    limits = [llamacpp.TOLERANCE[kind] for kind in KINDS]
    assert limits == sorted(limits) and set(llamacpp.TOLERANCE) == set(KINDS)


def test_a_torn_file_is_one_line(source: SourceModel, tmp_path: Path) -> None:
    data = export(source, tmp_path / "x.gguf").read_bytes()
    for size in (0, 3, 100, 5_000, len(data) - 1_000):
        (tmp_path / "torn.gguf").write_bytes(data[:size])
        with pytest.raises(GroundupError, match=r"torn\.gguf: cannot be read as GGUF"):
            gguf_file.check_file(tmp_path / "torn.gguf", source, "f32")


@needs_llama
def test_a_file_that_llama_cpp_refuses_is_one_line(source: SourceModel, tmp_path: Path) -> None:
    (tmp_path / "torn.gguf").write_bytes(export(source, tmp_path / "x.gguf").read_bytes()[:9_000])
    with (
        pytest.raises(GroundupError, match=r"llama\.cpp cannot load the GGUF file: ") as error,
        llamacpp.opened(tmp_path / "torn.gguf", 64),
    ):
        pass
    assert "\n" not in str(error.value)


SAYS = "import os, signal; print('{}', flush=True);"


@needs_llama
@pytest.mark.parametrize(
    ("child", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", None),
        (SAYS + "os.kill(os.getpid(), signal.SIGILL)", None),
        ("raise SystemExit('no wheel for this machine')", None),
        (SAYS + "os.abort()", "cannot load the GGUF file: ended by SIGABRT"),
        (
            SAYS + "os.kill(os.getpid(), signal.SIGSEGV)",
            "cannot load the GGUF file: ended by SIGSEGV",
        ),
    ],
)
def test_a_crash_of_llama_cpp_is_told(
    source: SourceModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    child: str,
    message: str | None,
) -> None:
    """On a processor that it was not built for the file is not compared, and says so; a crash over
    the file fails it.
    """
    monkeypatch.setattr(llamacpp, "WORKER", (sys.executable, "-c", child))
    path = export(source, tmp_path / "x.gguf")
    stored, _ = gguf_file.check_file(path, source, "f32")
    if message is None:
        found = llamacpp.check(path, source, "f32", stored, rows_of(source), [])
        assert found["llama_cpp"] is None and "does not run on this machine" in found["note"]
    else:
        with pytest.raises(GroundupError, match=message):
            llamacpp.check(path, source, "f32", stored, rows_of(source), [])


DIES = """
import http.server, json, os, signal
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        os.kill(os.getpid(), signal.{})
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print("{{}}", flush=True)
print(json.dumps({{"address": "http://127.0.0.1:" + str(server.server_port)}}), flush=True)
server.serve_forever()
"""


@needs_llama
@pytest.mark.parametrize("fate", ["SIGILL", "SIGSEGV"])
def test_a_crash_in_the_middle_is_told(
    source: SourceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    """The first sum may be the first instruction that a processor lacks; any other crash is of the
    file.
    """
    monkeypatch.setattr(llamacpp, "WORKER", (sys.executable, "-c", DIES.format(fate)))
    path = export(source, tmp_path / "x.gguf")
    stored, _ = gguf_file.check_file(path, source, "f32")
    if fate == "SIGILL":
        found = llamacpp.check(path, source, "f32", stored, rows_of(source), [])
        assert found["llama_cpp"] is None and "ended by SIGILL" in found["note"]
    else:
        with pytest.raises(GroundupError, match=r"llama\.cpp went away at /tokenize"):
            llamacpp.check(path, source, "f32", stored, rows_of(source), [])


@needs_llama
def test_a_child_that_dies_while_asked_is_told(source: SourceModel, tmp_path: Path) -> None:
    with llamacpp.opened(export(source, tmp_path / "x.gguf"), 64) as llama:
        with pytest.raises(GroundupError, match="answers /tokenize with an error"):
            llama.ask("/tokenize", content=7, with_pieces="x", add_special=[])
        with pytest.raises(GroundupError, match="answers /no-such-route with an error"):
            llama.ask("/no-such-route")
        with pytest.raises(GroundupError, match=r"answers /tokenize with an error.*401"):
            llamacpp.Llama(llama._address, "another key").ids("text")
    with pytest.raises(GroundupError, match="went away"):
        llama.ids("the child is gone")


def test_without_llama_cpp_it_says_so(
    source: SourceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "package_version", lambda name: "")
    found = gate(export(source, tmp_path / "x.gguf"), source, "f32")
    assert found["llama_cpp"] is None and "not installed" in str(found["note"])


def test_without_the_package_it_is_one_line(
    source: SourceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(
        GroundupError, match=r"needs the package gguf; `pip install 'groundup\[export\]'`"
    ):
        export(source, tmp_path / "x.gguf")
