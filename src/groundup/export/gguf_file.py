"""Writes a GGUF file, the form that llama.cpp loads. Reads the folder of a checkpoint or of a tuned model.

Tensors pass through one at a time, so a model of any size needs the memory of its largest matrix. Rotary positions of
Qwen3 turn the pairs (i, i + E/2) in llama.cpp as they do here, so no row of a matrix changes its place.
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
from groundup.export.origin import WEIGHTS, Origin
from groundup.model.config import ModelConfig
from groundup.tokenizer import SPECIALS

ARCHITECTURE = "qwen3"
# Our splitter is Qwen2's; under this name llama.cpp has it compiled in.
SPLITTER = "qwen2"

OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
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


def package() -> ModuleType:
    """Return the package `gguf`.

    Raises:
        GroundupError: it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise GroundupError("export: GGUF needs the package gguf; `pip install 'groundup[export]'` brings it") from None
    found: ModuleType = gguf
    return found


def tensor_names(layers: int) -> dict[str, str]:
    """Return the name of every tensor: ours → GGUF's. The head is the embedding, and llama.cpp takes that where it misses one."""
    inside = {f"model.layers.{n}.{ours}.weight": f"blk.{n}.{theirs}.weight" for n in range(layers) for ours, theirs in INSIDE.items()}
    return OUTSIDE | inside


def write_file(path: Path, origin: Origin, kind: str, facts: Mapping[str, str | Sequence[str]]) -> None:
    """Write the model at `origin` with weights of type `kind`.

    Args:
        kind: f32, f16, bf16 or q8_0; vectors stay f32, and matrices whose rows q8_0 cannot cut into blocks of 32 become f16.
        facts: `name`, `license` and `sources` of the run.

    Raises:
        GroundupError: the package gguf is missing, or a weight does not fit the type.
    """
    writer = package().GGUFWriter(path, ARCHITECTURE)
    try:
        _describe(writer, origin, kind, facts)
        _sizes(writer, origin.config)
        _vocabulary(writer, origin)
        _weights(writer, origin, kind)
    finally:
        writer.close()


def _describe(writer: Any, origin: Origin, kind: str, facts: Mapping[str, str | Sequence[str]]) -> None:
    gguf = package()
    writer.add_type("model")
    writer.add_name(facts["name"])
    writer.add_license(facts["license"])
    writer.add_size_label(gguf.size_label(origin.config.parameter_count(), origin.config.parameter_count(), 0, 0))
    writer.add_description(f"trained from scratch with groundup; weights: {origin.name}")
    writer.add_dataset_count(len(facts["sources"]))
    for number, source in enumerate(facts["sources"]):
        writer.add_dataset_name(number, source)
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"])
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
    padding = [f"[PAD{number}]" for number in range(len(tokens), origin.config.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(SPLITTER)
    writer.add_token_list(tokens + padding)
    kinds = [types.CONTROL if token in SPECIALS else types.NORMAL for token in tokens]
    writer.add_token_types(kinds + [types.UNUSED] * len(padding))
    writer.add_token_merges(written_merges(merges))
    end = origin.tokenizer.end_id
    # Named, since llama.cpp would take id 11 for it, but never added: see `hf.write_folder`.
    writer.add_bos_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_eos_token_id(origin.eos)
    writer.add_pad_token_id(end)
    if origin.template:
        writer.add_eot_token_id(origin.tokenizer.chat_ids[1])
        writer.add_chat_template(origin.template)


def written_merges(merges: list[str]) -> list[str]:
    """Return the merges as they stand in the file.

    llama.cpp wants the list to be there, and the format knows no empty one. The merge that stands for none can never
    apply, since a text is cut into bytes before, and neither side of it is one.
    """
    return merges or [f"{SPECIALS[0]} {SPECIALS[0]}"]


def _weights(writer: Any, origin: Origin, kind: str) -> None:
    """Write the table of tensors, then each tensor as it is read."""
    gguf = package()
    names = tensor_names(origin.config.layers)
    with safe_open(origin.path / WEIGHTS, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        types = {name: gguf.GGMLQuantizationType[stored_as(kind, shape).upper()] for name, shape in shapes.items()}
        for name, shape in shapes.items():
            size = int(np.prod(gguf.quant_shape_to_byte_shape(shape, types[name])))
            writer.add_tensor_info(names[name], shape, np.dtype(np.float32), size, raw_dtype=types[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in names:
            weight = file.get_tensor(name).float().numpy()
            writer.write_tensor_data(_converted(weight, types[name], names[name]))


def stored_as(kind: str, shape: Sequence[int]) -> str:
    """Return the type of one tensor: vectors are f32, because llama.cpp multiplies norms in no other type."""
    if len(shape) == 1:
        return "f32"
    return "f16" if kind == "q8_0" and shape[-1] % 32 else kind


def _converted(weight: npt.NDArray[np.float32], kind: Any, name: str) -> npt.NDArray[Any]:
    if not np.isfinite(weight).all():
        raise GroundupError(f"export: {name} holds a weight that is no finite number; the training diverged")
    with np.errstate(over="ignore"):
        stored: npt.NDArray[Any] = package().quantize(weight, kind)
    if stored.dtype == np.float16 and not np.isfinite(stored).all():
        raise GroundupError(f"export: {name} holds a weight beyond 65,504, too large for f16; take bf16 or f32")
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
        yield tensor.name, kind, gguf.dequantize(np.asarray(tensor.data), tensor.tensor_type).reshape(shape)
