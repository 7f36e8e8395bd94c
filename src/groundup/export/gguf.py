"""Writes a GGUF file, the form that llama.cpp loads. Reads the folder of a checkpoint or of a tuned
model.

Tensors pass through one at a time, so a model of any size needs the memory of its largest matrix.
Rotary positions of Qwen3 turn the pairs (i, i + E/2) in llama.cpp as they do here, so no row of a
matrix changes its place. Those of Llama turn the pairs (2i, 2i + 1) there, so the rows of its query
and key matrices are written in that order.
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
from groundup.export.source_model import WEIGHTS, Origin
from groundup.model.config import ModelConfig

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
    found: ModuleType = gguf
    return found


def tensor_names(config: ModelConfig) -> dict[str, str]:
    """Return the name of every tensor: ours → GGUF's. llama.cpp takes the embedding where it misses
    a head.
    """
    parts = {
        ours: theirs
        for ours, theirs in INSIDE.items()
        if config.query_key_norm or ours not in HEAD_NORMS
    }
    layers = range(config.layers)
    inside = {
        f"model.layers.{n}.{ours}.weight": f"blk.{n}.{theirs}.weight"
        for n in layers
        for ours, theirs in parts.items()
    }
    return OUTSIDE | ({} if config.tied else HEAD) | inside


def turned_heads(config: ModelConfig, name: str) -> int:
    """Return the heads of one of our matrices whose rows stand in another order in the file, 0 for
    any other.
    """
    if config.layout != "llama":
        return 0
    return {"q_proj": config.heads, "k_proj": config.kv_heads}.get(name.split(".")[-2], 0)


def write_file(
    path: Path, origin: Origin, kind: str, facts: Mapping[str, str | Sequence[str]]
) -> None:
    """Write the model at `origin` with weights of type `kind`.

    Args:
        kind: f32, f16, bf16 or q8_0; vectors stay f32, and matrices whose rows q8_0 cannot cut into
            blocks of 32 become f16.
        facts: `name`, `license` and `sources` of the run.

    Raises:
        GroundupError: the package gguf is missing, a weight does not fit the type, or llama.cpp
            lacks the splitter.
    """
    if not origin.tokenizer.splitter:
        raise GroundupError(
            f"export: {origin.path}: llama.cpp has no splitter like that of its tokenizer, so there"
            " is no GGUF of it"
        )
    writer = package().GGUFWriter(path, origin.config.layout)
    try:
        _describe(writer, origin, kind, facts)
        _sizes(writer, origin.config)
        _vocabulary(writer, origin)
        _weights(writer, origin, kind)
    finally:
        writer.close()


def _describe(
    writer: Any, origin: Origin, kind: str, facts: Mapping[str, str | Sequence[str]]
) -> None:
    gguf = package()
    writer.add_type("model")
    writer.add_name(facts["name"])
    writer.add_license(facts["license"])
    writer.add_size_label(
        gguf.size_label(origin.config.parameter_count(), origin.config.parameter_count(), 0, 0)
    )
    start = f"continued from {origin.base['name']}" if origin.base else "trained from scratch"
    writer.add_description(f"{start} with groundup; weights: {origin.name}")
    if origin.base:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, origin.base["name"])
    writer.add_dataset_count(len(facts["sources"]))
    for number, source in enumerate(facts["sources"]):
        writer.add_dataset_name(number, source)
    writer.add_file_type(
        gguf.LlamaFileType["ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"]
    )
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for ours, theirs in (("temperature", "temp"), ("top_p", "top_p")):
        if ours in origin.sampling:
            writer.add_float32(f"general.sampling.{theirs}", float(origin.sampling[ours]))


def _sizes(writer: Any, config: ModelConfig) -> None:
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


def _vocabulary(writer: Any, origin: Origin) -> None:
    types = package().TokenType
    tokens, merges = origin.vocabulary
    end = origin.tokenizer.end_id
    whole = tokens + [""] * (origin.config.vocab_size - len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(origin.tokenizer.splitter)
    writer.add_token_list([token or f"[PAD{number}]" for number, token in enumerate(whole)])
    kinds = dict.fromkeys(origin.tokenizer.whole_words, types.USER_DEFINED) | dict.fromkeys(
        origin.tokenizer.specials, types.CONTROL
    )
    writer.add_token_types(
        [kinds.get(token, types.NORMAL) if token else types.UNUSED for token in whole]
    )
    writer.add_token_merges(written_merges(merges, origin.tokenizer.end))
    # Named, since llama.cpp would take id 11 for it, but never added: see `hf.write_folder`.
    writer.add_bos_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(origin.eos)
    writer.add_pad_token_id(end)
    if origin.template:
        writer.add_eot_token_id(origin.tokenizer.stop_id)
        writer.add_chat_template(origin.template)


def written_merges(merges: list[str], end: str) -> list[str]:
    """Return the merges as they stand in the file.

    llama.cpp wants the list to be there, and the format knows no empty one. The merge that stands
    for none can never apply, since a text is cut into bytes before, and neither side of it is one.
    """
    return merges or [f"{end} {end}"]


def _weights(writer: Any, origin: Origin, kind: str) -> None:
    """Write the table of tensors, then each tensor as it is read."""
    gguf, config = package(), origin.config
    names = tensor_names(config)
    with safe_open(origin.path / WEIGHTS, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        types = {
            name: gguf.GGMLQuantizationType[stored_as(kind, shape).upper()]
            for name, shape in shapes.items()
        }
        for name, shape in shapes.items():
            size = int(np.prod(gguf.quant_shape_to_byte_shape(shape, types[name])))
            writer.add_tensor_info(
                names[name], shape, np.dtype(np.float32), size, raw_dtype=types[name]
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in names:
            weight = pairs_together(
                file.get_tensor(name).float().numpy(), turned_heads(config, name)
            )
            writer.write_tensor_data(_converted(weight, types[name], names[name]))


def pairs_together(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Return a matrix with the rows i and i + E/2 of each head side by side; 0 heads leave it as it
    is.
    """
    if not heads:
        return weight
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)


def stored_as(kind: str, shape: Sequence[int]) -> str:
    """Return the type of one tensor: vectors are f32, because llama.cpp multiplies norms in no
    other type.
    """
    if len(shape) == 1:
        return "f32"
    return "f16" if kind == "q8_0" and shape[-1] % 32 else kind


def _converted(weight: npt.NDArray[np.float32], kind: Any, name: str) -> npt.NDArray[Any]:
    if not np.isfinite(weight).all():
        raise GroundupError(
            f"export: {name} holds a weight that is no finite number; the training diverged"
        )
    with np.errstate(over="ignore"):
        stored: npt.NDArray[Any] = package().quantize(weight, kind)
    if stored.dtype == np.float16 and not np.isfinite(stored).all():
        raise GroundupError(
            f"export: {name} holds a weight beyond 65,504, too large for f16; take bf16 or f32"
        )
    return stored


def fields(path: Path) -> dict[str, Any]:
    """Return the metadata of a GGUF file.

    Raises:
        GroundupError: it is missing, torn or no GGUF file.
    """
    return {name: field.contents() for name, field in reader(path).fields.items()}


def reader(path: Path) -> Any:
    """Open a GGUF file; its tensors are mapped, not loaded.

    Raises:
        GroundupError: it is missing, torn or no GGUF file.
    """
    gguf = package()
    try:
        return gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise GroundupError(f"{path}: cannot be read as GGUF: {error}") from None


def tensors(path: Path) -> Iterator[tuple[str, str, npt.NDArray[np.float32]]]:
    """Yield name, type and float32 values of every tensor of a GGUF file."""
    gguf = package()
    for tensor in reader(path).tensors:
        kind = tensor.tensor_type.name.lower()
        shape = tuple(int(size) for size in reversed(tensor.shape))
        yield (
            tensor.name,
            kind,
            gguf.dequantize(np.asarray(tensor.data), tensor.tensor_type).reshape(shape),
        )
