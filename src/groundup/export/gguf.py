"""The format gguf: a file that llama.cpp loads.

Tensors pass through one at a time, so a model of any size needs the memory of its largest matrix.
The file is read back and compared with the model: every weight, size, token and merge. The second
check is what llama.cpp makes of it (llamacpp.py). A file that cannot be read, and the first
difference, are a GroundupError.

In llama.cpp the rotary positions of Qwen3 rotate the pairs (i, i + E/2) of a head, as they do here,
so matrices are written as they are. Those of Llama rotate the pairs (2i, 2i + 1), so the rows of
its query and key matrices are written in that order:

    here        0 1 2 3 | 4 5 6 7     halves of a head of width 8
    llama.cpp   0 4 1 5 2 6 3 7
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from torch import Tensor

from groundup.errors import GroundupError
from groundup.export import llamacpp, parity
from groundup.export.formats import ExportOptions, Format, Written
from groundup.export.source_model import WEIGHTS, SourceModel
from groundup.model.config import ModelConfig
from groundup.model.hf_io import load_model
from groundup.model.transformer import Transformer
from groundup.recipe import Export

if TYPE_CHECKING:
    from groundup.artifacts.pretrained import PretrainedModel

FILE = "model.gguf"
# Of a parameter; q8_0 adds a scale of two bytes to each block of 32.
BYTES = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32}
# Values in a block of q8_0, and steps between 0 and the largest of them; the step is kept as f16.
BLOCK, LEVELS = 32, 127
INSTALL = "`pip install 'groundup[export]'` brings it"
# Token types in a GGUF file.
CONTROL, USER_DEFINED = 3, 4

# Our names of tensors in a layer → those of GGUF.
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")


class GgufFile(Format):
    """A file for llama.cpp in one of several number formats."""

    version, file, program = 3, "model{model}-{type}.gguf", "llama_cpp"

    def types(self, export: Export) -> Sequence[str]:
        """Return the number formats, one file each."""
        return export.gguf_types

    def bytes_per_parameter(self, type: str) -> float:
        """Return the size of a weight in this number format."""
        return BYTES[type]

    def obstacle(self, base: PretrainedModel | None) -> str:
        """Return what is missing: a package, or a pre-tokenizer in llama.cpp."""
        if base is not None and not base.tokenizer.splitter:
            lacks = f"llama.cpp has no splitter like that of the tokenizer in {base.path}"
            return f"[export] formats name gguf, and {lacks}; leave gguf out"
        if importlib.util.find_spec("gguf") is None:
            return f"[export] formats name gguf, which needs the package gguf; {INSTALL}"
        return ""

    def key(self, sources: Sequence[str]) -> dict[str, Any]:
        """Return the versions of both packages, and the sources, which the file names."""
        package()
        version = parity.package_version
        versions = {"gguf": version("gguf"), "llama_cpp": version(llamacpp.PACKAGE)}
        return versions | {"sources": sources}

    def write(self, folder: Path, source: SourceModel, options: ExportOptions) -> Written:
        """Write `model.gguf`, read it back, and compare what llama.cpp computes from it."""
        path, gguf_type, texts = folder / FILE, options.type, options.texts
        write_file(path, source, gguf_type, options.facts)
        rows = parity.probe_rows(source.tokenizer, texts, source.config.context, options.seed)
        stored, found = check_file(path, source, gguf_type)
        found |= parity.rounding_effect(load_model(source.path), stored, rows)
        found |= llamacpp.check(path, source, gguf_type, stored, rows, texts)
        return {"type": gguf_type, "bytes": path.stat().st_size} | found

    def differences(self, artifact: Path, source: SourceModel) -> Iterator[str]:
        """Compare sizes and vocabulary; the first difference is raised as GroundupError."""
        compare_metadata(artifact / FILE, source)
        yield from ()


def package() -> Any:
    """Return the package `gguf`, or raise GroundupError if it is not installed."""
    try:
        import gguf
    except ImportError:
        raise GroundupError(f"export: GGUF needs the package gguf; {INSTALL}") from None
    return gguf


def tensor_names(config: ModelConfig) -> dict[str, str]:
    """Return our name of every tensor → GGUF's."""
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    if not config.tied:
        # Without a head, llama.cpp uses the embedding.
        names["lm_head.weight"] = "output.weight"
    for n in range(config.layers):
        for ours, theirs in LAYER_NAMES.items():
            if config.query_key_norm or ours not in HEAD_NORMS:
                names[f"model.layers.{n}.{ours}.weight"] = f"blk.{n}.{theirs}.weight"
    return names


def interleaved_heads(config: ModelConfig, name: str) -> int:
    """Return the heads of a matrix whose rows are reordered in the file, 0 for any other tensor."""
    if config.layout != "llama":
        return 0
    return {"q_proj": config.heads, "k_proj": config.kv_heads}.get(name.split(".")[-2], 0)


def write_file(
    path: Path, source: SourceModel, gguf_type: str, facts: Mapping[str, str | Sequence[str]]
) -> None:
    """Write a model with weights of type `gguf_type`; `facts` are those of `ExportOptions`.

    Raises GroundupError if the package gguf is missing, a weight does not fit the type, or
    llama.cpp lacks the pre-tokenizer.
    """
    if not source.tokenizer.splitter:
        lacks = "llama.cpp has no splitter like that of its tokenizer, so there is no GGUF of it"
        raise GroundupError(f"export: {source.path}: {lacks}")
    writer = package().GGUFWriter(path, source.config.layout)
    try:
        _write_metadata(writer, source, gguf_type, facts)
        _write_vocabulary(writer, source)
        _write_weights(writer, source, gguf_type)
    finally:
        writer.close()


def _write_metadata(
    writer: Any, source: SourceModel, gguf_type: str, facts: Mapping[str, str | Sequence[str]]
) -> None:
    gguf, config, parameters = package(), source.config, source.config.parameter_count()
    writer.add_type("model")
    writer.add_name(facts["name"])
    writer.add_license(facts["license"])
    writer.add_size_label(gguf.size_label(parameters, parameters, 0, 0))
    start = f"continued from {source.base['name']}" if source.base else "trained from scratch"
    writer.add_description(f"{start} with groundup; weights: {source.name}")
    if source.base:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, source.base["name"])
    writer.add_dataset_count(len(facts["sources"]))
    for n, name in enumerate(facts["sources"]):
        writer.add_dataset_name(n, name)
    file_type = "ALL_F32" if gguf_type == "f32" else f"MOSTLY_{gguf_type.upper()}"
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for ours, theirs in (("temperature", "temp"), ("top_p", "top_p")):
        if ours in source.sampling:
            writer.add_float32(f"general.sampling.{theirs}", float(source.sampling[ours]))
    for name, value in sizes(config).items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{config.layout}.{name}", value)


def _write_vocabulary(writer: Any, source: SourceModel) -> None:
    types, tokenizer = package().TokenType, source.tokenizer
    tokens, merges = source.vocabulary
    padded = tokens + [""] * (source.config.vocab_size - len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.splitter)
    writer.add_token_list([token or f"[PAD{n}]" for n, token in enumerate(padded)])
    token_types = dict.fromkeys(tokenizer.whole_words, types.USER_DEFINED)
    token_types |= dict.fromkeys(tokenizer.specials, types.CONTROL)
    token_types[""] = types.UNUSED
    writer.add_token_types([token_types.get(token, types.NORMAL) for token in padded])
    writer.add_token_merges(written_merges(merges, tokenizer.end))
    # llama.cpp would take id 11 if there were no name, but the token is never added: see
    # `hf.write_folder`.
    writer.add_bos_token_id(tokenizer.end_id)
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(source.eos)
    writer.add_pad_token_id(tokenizer.end_id)
    if source.template:
        writer.add_eot_token_id(tokenizer.stop_id)
        writer.add_chat_template(source.template)


def written_merges(merges: list[str], end: str) -> list[str]:
    """Return the merges as they stand in the file, where the list must not be empty.

    The merge in place of none never applies: text is split into bytes, and neither side is one.
    """
    return merges or [f"{end} {end}"]


def _write_weights(writer: Any, source: SourceModel, gguf_type: str) -> None:
    """Write the table of tensors, then each tensor as it is read."""
    gguf, config = package(), source.config
    names = tensor_names(config)
    with safe_open(source.path / WEIGHTS, "pt") as file:
        types, float32 = {}, np.dtype(np.float32)
        for name in names:
            shape = tuple(file.get_slice(name).get_shape())
            types[name] = gguf.GGMLQuantizationType[stored_type(gguf_type, shape).upper()]
            size = int(np.prod(gguf.quant_shape_to_byte_shape(shape, types[name])))
            writer.add_tensor_info(names[name], shape, float32, size, raw_dtype=types[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in names:
            weight = file.get_tensor(name).float().numpy()
            if not np.isfinite(weight).all():
                wrong = "that is no finite number; the training diverged"
                raise GroundupError(f"export: {names[name]} holds a weight {wrong}")
            if heads := interleaved_heads(config, name):
                # The rows i and i + E/2 of each head come side by side.
                halves = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2)
                weight = np.ascontiguousarray(halves).reshape(weight.shape)
            with np.errstate(over="ignore"):
                stored = gguf.quantize(weight, types[name])
            if stored.dtype == np.float16 and not np.isfinite(stored).all():
                wrong = "beyond 65,504, too large for f16; take bf16 or f32"
                raise GroundupError(f"export: {names[name]} holds a weight {wrong}")
            writer.write_tensor_data(stored)


def stored_type(gguf_type: str, shape: Sequence[int]) -> str:
    """Return the type of one tensor in a file of type `gguf_type` (f32, f16, bf16 or q8_0).

    Vectors stay f32, and matrices whose rows cannot be cut into q8_0's blocks become f16.
    """
    if len(shape) == 1:
        # llama.cpp multiplies norms in no other type.
        return "f32"
    return "f16" if gguf_type == "q8_0" and shape[-1] % BLOCK else gguf_type


def _reader(path: Path) -> Any:
    """Open a GGUF file; its tensors are mapped, not loaded."""
    gguf = package()
    try:
        return gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise GroundupError(f"{path}: cannot be read as GGUF: {error}") from None


def fields(path: Path) -> dict[str, Any]:
    """Return the metadata of a GGUF file."""
    return {name: field.contents() for name, field in _reader(path).fields.items()}


def tensors(path: Path) -> Iterator[tuple[str, str, npt.NDArray[np.float32]]]:
    """Yield name, type and float32 values of every tensor of a GGUF file."""
    gguf = package()
    for tensor in _reader(path).tensors:
        values = gguf.dequantize(np.asarray(tensor.data), tensor.tensor_type)
        shape = tuple(int(size) for size in reversed(tensor.shape))
        yield tensor.name, tensor.tensor_type.name.lower(), values.reshape(shape)


def check_file(path: Path, source: SourceModel, gguf_type: str) -> tuple[Transformer, Written]:
    """Compare a GGUF file with the folder that it was made from.

    Returns the model that the file holds, rounded as it is there, and what was compared.
    """
    compare_metadata(path, source)
    model = Transformer(dataclasses.replace(source.config, dropout=0.0)).eval()
    missing = {theirs: ours for ours, theirs in tensor_names(source.config).items()}
    types: Counter[str] = Counter()
    with safe_open(source.path / WEIGHTS, "pt") as file, torch.no_grad():
        for name, stored, values in tensors(path):
            if name not in missing:
                what = "a tensor that the model lacks or one that is there twice"
                raise GroundupError(f"export: the GGUF file holds {name}, {what}")
            ours = missing.pop(name)
            weight = file.get_tensor(ours).float()
            expected = stored_type(gguf_type, weight.shape)
            if stored != expected:
                raise GroundupError(f"export: {name} is stored as {stored}, not as {expected}")
            found = torch.from_numpy(values.copy())
            if heads := interleaved_heads(source.config, ours):
                # Undo the order of rows, by another implementation than the writer's.
                parts = found.chunk(heads)
                found = torch.cat([head[start::2] for head in parts for start in (0, 1)])
            compare_weight(name, stored, weight, found)
            model.get_parameter(ours).copy_(found)
            types[stored] += 1
    if missing:
        raise GroundupError(f"export: the GGUF file lacks {', '.join(sorted(missing))[:200]}")
    tokens, merges = source.vocabulary
    return model, {"tokens": len(tokens), "merges": len(merges), "tensors": dict(types)}


def sizes(config: ModelConfig) -> dict[str, int | float]:
    """Return the sizes of a model by their names in a GGUF file, without the architecture's."""
    return {
        "block_count": config.layers,
        "context_length": config.context,
        "embedding_length": config.width,
        "feed_forward_length": config.feed_forward,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_width,
        "attention.value_length": config.head_width,
        "rope.dimension_count": config.head_width,
        # As float32, which the file holds.
        "rope.freq_base": float(np.float32(config.rope_theta)),
        "attention.layer_norm_rms_epsilon": float(np.float32(config.norm_epsilon)),
        "vocab_size": config.vocab_size,
    }


def compare_metadata(path: Path, source: SourceModel) -> None:
    """Compare sizes, tokens, merges, special ids, pre-tokenizer and chat template of a file."""
    table, layout, tokenizer = fields(path), source.config.layout, source.tokenizer
    tokens, merges = source.vocabulary
    expected: dict[str, Any] = {
        "general.architecture": layout,
        **{f"{layout}.{name}": value for name, value in sizes(source.config).items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": tokenizer.splitter,
        "tokenizer.ggml.bos_token_id": tokenizer.end_id,
        "tokenizer.ggml.eos_token_id": source.eos,
        "tokenizer.ggml.padding_token_id": tokenizer.end_id,
        "tokenizer.ggml.add_bos_token": False,
    }
    if source.template:
        expected["tokenizer.chat_template"] = source.template
        expected["tokenizer.ggml.eot_token_id"] = tokenizer.stop_id
    for name, value in expected.items():
        if table.get(name) != value:
            says, expects = f"{name} = {str(table.get(name))[:80]!r}", str(value)[:80]
            raise GroundupError(f"export: the GGUF file says {says}, the model {expects!r}")
    stored = table.get("tokenizer.ggml.tokens", [])[: len(tokens)]
    # An unused id has a made-up name in the file.
    named = [name if token else "" for name, token in zip(stored, tokens, strict=False)]
    _compare_lists("tokens", named, tokens)
    stored = table.get("tokenizer.ggml.merges", [])
    _compare_lists("merges", stored, written_merges(merges, tokenizer.end))
    types = table.get("tokenizer.ggml.token_type") or []
    for title, token_type, names in (
        ("special tokens", CONTROL, tokenizer.specials),
        ("added tokens", USER_DEFINED, tokenizer.whole_words),
    ):
        of_type = [token for token, t in zip(tokens, types, strict=False) if t == token_type]
        _compare_lists(title, sorted(of_type), sorted(names))


def _compare_lists(name: str, found: Sequence[str], expected: Sequence[str]) -> None:
    """Compare long lists; the message does not show 50,000 entries."""
    if list(found) != list(expected):
        pairs = enumerate(zip(found, expected, strict=False))
        shorter = min(len(found), len(expected))
        first = next((n for n, (one, other) in pairs if one != other), shorter)
        other = f"other {name} than the tokenizer; the first that differs is number {first}"
        raise GroundupError(f"export: the GGUF file holds {other}")


def compare_weight(name: str, gguf_type: str, weight: Tensor, found: Tensor) -> None:
    """Compare one tensor with the checkpoint's: exactly, after rounding if the type rounds.

    f16 and bf16 are compared with PyTorch's rounding, not with that which wrote them. q8_0 may move
    a weight by half a step, plus the rounding of the step to f16 times 127 steps. The step of a
    block is its largest weight over 127; f16 keeps it to 2^-11 of itself, or 2^-25 if it is
    subnormal.
    """
    shape, expected = tuple(found.shape), tuple(weight.shape)
    if shape != expected:
        raise GroundupError(f"export: {name} has the shape {shape}, not {expected}")
    if gguf_type == "q8_0":
        blocks = weight.reshape(-1, BLOCK).abs()
        step = blocks.amax(dim=1, keepdim=True) / LEVELS
        bound = 1.001 * (step * (0.5 + LEVELS * 2.0**-11) + LEVELS * 2.0**-25)
        wrong = (weight - found).abs() > bound.expand_as(blocks).reshape(expected)
    else:
        dtypes = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
        wrong = weight.to(dtypes[gguf_type]).float() != found
    if bool(wrong.any()) or not bool(found.isfinite().all()):
        count = f"{int(wrong.sum())} of {wrong.numel()} weights of {name}"
        raise GroundupError(f"export: {count} are not those of the checkpoint")
