"""Writes and reads GGUF files, which llama.cpp loads.

Tensors pass through one at a time, so a model of any size needs the memory of its largest matrix.
In llama.cpp the rotary positions of Qwen3 rotate the pairs (i, i + E/2) of a head, as they do here,
so matrices are written as they are. Those of Llama rotate the pairs (2i, 2i + 1), so the rows of
its query and key matrices are written in that order:

    here        0 1 2 3 | 4 5 6 7     halves of a head of width 8
    llama.cpp   0 4 1 5 2 6 3 7
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from groundup.errors import GroundupError
from groundup.export.source_model import WEIGHTS, SourceModel
from groundup.model.config import ModelConfig

# Our names of tensors → those of GGUF: outside and inside of layers.
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}
HEAD = {"lm_head.weight": "output.weight"}
INSIDE = {
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


def package() -> ModuleType:
    """Return the package `gguf`.

    Raises:
        GroundupError: it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise GroundupError(
            "export: GGUF needs the package gguf; `pip install 'groundup[export]'` brings it"
        ) from None
    module: ModuleType = gguf
    return module


def tensor_names(config: ModelConfig) -> dict[str, str]:
    """Return our name of every tensor → GGUF's."""
    names = dict(OUTSIDE)
    if not config.tied:
        # Without a head, llama.cpp uses the embedding.
        names |= HEAD
    for n in range(config.layers):
        for ours, theirs in INSIDE.items():
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
    """Write a model with weights of type `gguf_type`.

    Args:
        gguf_type: f32, f16, bf16 or q8_0; vectors stay f32, and matrices whose rows cannot be cut
            into q8_0's blocks of 32 become f16.
        facts: `name`, `license` and `sources` of the run.

    Raises:
        GroundupError: the package gguf is missing, a weight does not fit the type, or llama.cpp
            lacks the pre-tokenizer.
    """
    if not source.tokenizer.splitter:
        raise GroundupError(
            f"export: {source.path}: llama.cpp has no splitter like that of its tokenizer, so there"
            " is no GGUF of it"
        )
    writer = package().GGUFWriter(path, source.config.layout)
    try:
        _write_description(writer, source, gguf_type, facts)
        _write_sizes(writer, source.config)
        _write_vocabulary(writer, source)
        _write_weights(writer, source, gguf_type)
    finally:
        writer.close()


def _write_description(
    writer: Any, source: SourceModel, gguf_type: str, facts: Mapping[str, str | Sequence[str]]
) -> None:
    gguf, parameters = package(), source.config.parameter_count()
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


def _write_sizes(writer: Any, config: ModelConfig) -> None:
    writer.add_block_count(config.layers)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.feed_forward)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_vocab_size(config.vocab_size)


def _write_vocabulary(writer: Any, source: SourceModel) -> None:
    types, tokenizer = package().TokenType, source.tokenizer
    tokens, merges = source.vocabulary
    padded = tokens + [""] * (source.config.vocab_size - len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.splitter)
    writer.add_token_list([token or f"[PAD{n}]" for n, token in enumerate(padded)])
    token_types = dict.fromkeys(tokenizer.whole_words, types.USER_DEFINED)
    token_types |= dict.fromkeys(tokenizer.specials, types.CONTROL)
    writer.add_token_types(
        [token_types.get(token, types.NORMAL) if token else types.UNUSED for token in padded]
    )
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
    """Return the merges as they stand in the file.

    llama.cpp requires the list, and the format has no empty lists. The merge that is written in
    place of none never applies: text is split into bytes first, and neither side of it is a byte.
    """
    return merges or [f"{end} {end}"]


def _write_weights(writer: Any, source: SourceModel, gguf_type: str) -> None:
    """Write the table of tensors, then each tensor as it is read."""
    gguf, config = package(), source.config
    names = tensor_names(config)
    with safe_open(source.path / WEIGHTS, "pt") as file:
        types = {}
        for name in names:
            shape = tuple(file.get_slice(name).get_shape())
            types[name] = gguf.GGMLQuantizationType[stored_type(gguf_type, shape).upper()]
            size = int(np.prod(gguf.quant_shape_to_byte_shape(shape, types[name])))
            writer.add_tensor_info(
                names[name], shape, np.dtype(np.float32), size, raw_dtype=types[name]
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in names:
            weight = file.get_tensor(name).float().numpy()
            weight = interleave_rows(weight, interleaved_heads(config, name))
            writer.write_tensor_data(_quantized(weight, types[name], names[name]))


def interleave_rows(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Return a matrix with the rows i and i + E/2 of each head side by side; 0 heads: unchanged."""
    if not heads:
        return weight
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)


def stored_type(gguf_type: str, shape: Sequence[int]) -> str:
    """Return the type of one tensor in a file of type `gguf_type`."""
    if len(shape) == 1:
        # llama.cpp multiplies norms in no other type.
        return "f32"
    return "f16" if gguf_type == "q8_0" and shape[-1] % 32 else gguf_type


def _quantized(weight: npt.NDArray[np.float32], gguf_type: Any, name: str) -> npt.NDArray[Any]:
    if not np.isfinite(weight).all():
        raise GroundupError(
            f"export: {name} holds a weight that is no finite number; the training diverged"
        )
    with np.errstate(over="ignore"):
        stored: npt.NDArray[Any] = package().quantize(weight, gguf_type)
    if stored.dtype == np.float16 and not np.isfinite(stored).all():
        raise GroundupError(
            f"export: {name} holds a weight beyond 65,504, too large for f16; take bf16 or f32"
        )
    return stored


def _reader(path: Path) -> Any:
    """Open a GGUF file; its tensors are mapped, not loaded."""
    gguf = package()
    try:
        return gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise GroundupError(f"{path}: cannot be read as GGUF: {error}") from None


def fields(path: Path) -> dict[str, Any]:
    """Return the metadata of a GGUF file.

    Raises:
        GroundupError: it is missing, damaged or no GGUF file.
    """
    return {name: field.contents() for name, field in _reader(path).fields.items()}


def tensors(path: Path) -> Iterator[tuple[str, str, npt.NDArray[np.float32]]]:
    """Yield name, type and float32 values of every tensor of a GGUF file.

    Raises:
        GroundupError: it is missing, damaged or no GGUF file.
    """
    gguf = package()
    for tensor in _reader(path).tensors:
        values = gguf.dequantize(np.asarray(tensor.data), tensor.tensor_type)
        shape = tuple(int(size) for size in reversed(tensor.shape))
        yield tensor.name, tensor.tensor_type.name.lower(), values.reshape(shape)
