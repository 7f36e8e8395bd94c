"""Counts what one training step costs, without doing it: operations, bytes moved, memory.

The real model, loss, backward pass and optimizer run on fake tensors, which have a shape and a type
but no numbers. Every kernel that PyTorch would start is seen by a `StepCounter`:

    Transformer.loss ─ backward ─ Optimizer.step        on fake tensors: no memory, no time
            │ every kernel
            ▼
    StepCounter ─┬─ operations  of matrix products and of attention
                 ├─ bytes       that all other kernels read and write: alone, or fused (see below)
                 └─ memory      of all tensors that are alive; the highest point of each phase

So the figures follow the code: who changes the model need not change a formula. One and two layers
are counted; each further layer costs what the second one does.

Fused bytes are those of compiled code, where kernels between two matrix products become one: a
tensor is read and written only if it crosses a matrix product or attention. An example, the end of
a block: `silu(gate) * up` reads two tensors and writes one, as one kernel. As two kernels it also
writes and reads silu(gate): five tensors instead of three.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from groundup.model import cross_entropy
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.train.optimizer import FlatParameters, Optimizer

Part = Literal["layers", "head", "optimizer", "rest"]
Phase = Literal["forward", "head", "backward", "optimizer"]
# A part of a storage: its number (of a weight, its address), offset and number of elements.
Place = tuple[int, int, int]

# They allocate, but move nothing.
ALLOCATING = ("aten.empty", "aten.new_empty", "prim.device")
# They read the rows that an index names, not the whole table.
INDEXED = ("aten.embedding.default", "aten.gather", "aten.scatter")
# Operations of matrix products; the head adds to its gradient in place.
PRODUCTS = flop_registry | {torch.ops.aten.addmm_: flop_registry[torch.ops.aten.addmm]}
ATTENTION = "aten._scaled_dot_product"
# Flash attention computes the scores again in its backward pass: five products instead of two.
ATTENTION_BACKWARD = 2.5


@dataclass
class Traffic:
    """What the kernels of one part of a step do."""

    matrix_flops: float = 0.0
    matrix_bytes: float = 0.0  # read and written by matrix products
    attention_flops: float = 0.0
    bytes: float = 0.0  # read and written by all other kernels, each on its own
    fused_bytes: float = 0.0  # the same if neighbors are fused
    kernels: float = 0.0
    products: float = 0.0  # how many of the kernels are matrix products or attention

    def extrapolate(self, next_one: Traffic, times: float) -> Traffic:
        """Return this plus `times` the difference to `next_one`."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(next_one), strict=True)
        return Traffic(*(first + times * (second - first) for first, second in pairs))


@dataclass(frozen=True)
class StepCost:
    """What a training step costs one process, for one micro-batch and one update of the weights."""

    parameters: int
    state_bytes: float  # of the optimizer
    saved_bytes: float  # what the layers keep for the backward pass
    # The highest point of each phase, beyond weights, gradients, optimizer state.
    peaks: Mapping[Phase, float]
    parts: Mapping[Part, Traffic]


class StepCounter(TorchDispatchMode):
    """Sees every kernel while it is entered; `part` and `phase` say what it belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.part: Part = "layers"
        self.phase: Phase = "forward"
        self.parts: dict[Part, Traffic] = {}
        self.peaks: dict[Phase, float] = {}
        self.live = 0.0
        # Kernels between two matrix products have the same group: compiled, they are one.
        self._group = 0
        self._storages: dict[int, _Storage] = {}
        # Addresses are used again, so a storage that ends is known by a number of its own.
        self._numbers = itertools.count()
        self._read_in: dict[Place, int] = {}  # the last group that read it

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        known = {tensor.untyped_storage()._cdata for tensor in inputs}
        new = [tensor for tensor in outputs if tensor.untyped_storage()._cdata not in known]
        changed = _changed(func, args)
        self._allocate(new)
        if (new or changed) and not str(func).startswith(ALLOCATING):
            self._count(func, args, inputs, [*new, *changed], out)
        return out

    def _allocate(self, tensors: Iterable[Tensor]) -> None:
        """Follow new storages from here to the end of their lives."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._storages:
                self._storages[key] = _Storage(next(self._numbers))
                self.live += size
                weakref.finalize(storage, self._free, key, size)
        self.peaks[self.phase] = max(self.peaks.get(self.phase, 0.0), self.live)

    def _free(self, key: int, size: int) -> None:
        del self._storages[key]
        self.live -= size

    def _count(
        self, func: Any, args: Sequence[Any], inputs: list[Tensor], written: list[Tensor], out: Any
    ) -> None:
        traffic, name = self.parts.setdefault(self.part, Traffic()), str(func)
        traffic.kernels += 1
        packet = func.overloadpacket
        if name.startswith(ATTENTION):
            traffic.attention_flops += _attention_flops(name, args)
        elif packet in PRODUCTS:
            traffic.matrix_flops += PRODUCTS[packet](*args, out_val=out)
            traffic.matrix_bytes += sum(map(_size, [*inputs, *written]))
        elif name.startswith(INDEXED):
            rows = 2 * min(map(_size, [*inputs, *written]))
            traffic.bytes += rows
            traffic.fused_bytes += rows
            return
        else:
            traffic.bytes += sum({self._place(t): _size(t) for t in inputs}.values())
            traffic.bytes += sum(map(_size, written))
            self._fuse(traffic, inputs, written)
            return
        traffic.products += 1
        # Compiled, what a matrix product reads has to be in memory.
        self._group += 1
        for tensor in inputs:
            self._write_back(traffic, tensor)

    def _fuse(self, traffic: Traffic, inputs: list[Tensor], written: list[Tensor]) -> None:
        """Count what a kernel moves that is fused with the others of its group."""
        sources: dict[Place, int] = {}
        for tensor in inputs:
            storage = self._storage(tensor)
            same_group = storage is not None and storage.group == self._group
            if storage is not None and (same_group or self._is_recomputed(storage)):
                sources |= storage.sources
            else:
                self._write_back(traffic, tensor)
                sources[self._place(tensor)] = _size(tensor)
        for place, size in sources.items():
            if self._read_in.get(place) != self._group:
                traffic.fused_bytes += size
                self._read_in[place] = self._group
        for tensor in written:
            storage = self._storage(tensor)
            if storage is None:
                # A weight, a gradient: it lives on.
                traffic.fused_bytes += _size(tensor)
            else:
                storage.group, storage.pending, storage.phase = self._group, True, self.phase
                storage.sources |= sources

    def _is_recomputed(self, storage: _Storage) -> bool:
        """Whether the backward pass makes it again: no matrix product had it in memory."""
        return storage.pending and storage.phase == "forward" and self.phase == "backward"

    def _write_back(self, traffic: Traffic, tensor: Tensor) -> None:
        """Count the write of a tensor that a fused kernel made, if it was not counted yet."""
        storage = self._storage(tensor)
        if storage is not None and storage.pending:
            traffic.fused_bytes += tensor.untyped_storage().nbytes()
            storage.pending = False

    def _storage(self, tensor: Tensor) -> _Storage | None:
        return self._storages.get(tensor.untyped_storage()._cdata)

    def _place(self, tensor: Tensor) -> Place:
        storage = self._storage(tensor)
        number = tensor.untyped_storage()._cdata if storage is None else storage.number
        return number, int(tensor.storage_offset()), tensor.numel()


@dataclass
class _Storage:
    """Memory that a kernel made."""

    number: int
    group: int = -1  # of the fused kernel that wrote it; -1 for a matrix product
    phase: Phase = "forward"
    pending: bool = False  # whether its write is not counted yet
    sources: dict[Place, int] = field(default_factory=dict)  # what it is made of, with bytes


def _changed(func: Any, args: Sequence[Any]) -> list[Tensor]:
    """Return the inputs that a kernel writes to."""
    declared = zip(func._schema.arguments, args, strict=False)
    writes = (value for argument, value in declared if _is_written(argument))
    return [value for value in writes if isinstance(value, Tensor)]


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _size(tensor: Tensor) -> int:
    """Return the bytes of a tensor; an expanded one has no more than its storage."""
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())


def _attention_flops(name: str, args: Sequence[Any]) -> float:
    """Return the operations of causal attention: scores and their product with the values."""
    backward = "backward" in name
    batch, heads, length, width = args[1 if backward else 0].shape
    forward = 4 * batch * heads * width * length * (length + 1) / 2
    return forward * (ATTENTION_BACKWARD if backward else 1.0)


@functools.lru_cache(maxsize=32)
def count_step(
    config: ModelConfig,
    size: int,
    *,
    precision: str = "bf16",
    recompute: bool = False,
    optimizer: str = "muon",
    device: str = "cuda",
) -> StepCost:
    """Count a step of one micro-batch of `size` sequences; `device` decides the head's chunks.

    Kernels are those of the CPU, whose norms are made of several; fused, that is the same.
    """
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    counted = []
    with _chunks_of(device):
        for layers in (1, 2):
            small = dataclasses.replace(config, layers=layers)
            counter, saved = _count_passes(small, size, precision, recompute)
            counted.append((counter.parts, counter.peaks, saved))
    (parts, peaks, saved), (more_parts, more_peaks, more_saved) = counted
    further = config.layers - 1
    costs = {part: parts[part].extrapolate(more_parts[part], further) for part in parts}
    highest = {
        phase: peaks[phase] + further * (more_peaks[phase] - peaks[phase]) for phase in peaks
    }
    costs["optimizer"], highest["optimizer"], state = _count_update(config, optimizer, dtype)
    kept = saved + further * (more_saved - saved)
    return StepCost(config.parameter_count(), state, kept, highest, costs)


def _count_passes(
    config: ModelConfig, size: int, precision: str, recompute: bool
) -> tuple[StepCounter, float]:
    """Count forward and backward pass; also returns the bytes alive when the layers are done."""
    model = Transformer(config, seed=None, device="meta").train()
    model.recompute = recompute
    if precision == "bf16":
        model.residual = torch.bfloat16
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(model)
        parameters, counter = FlatParameters(model), StepCounter()
        tokens_BT = torch.zeros(size, config.context + 1, dtype=torch.long)
        saved = 0.0

        def head_begins(*_: object) -> None:
            nonlocal saved
            counter.part, counter.phase, saved = "head", "head", counter.live

        def layers_begin(_: Tensor) -> None:
            counter.part, counter.phase = "layers", "backward"

        def norm_done(module: nn.Module, args: object, normed: Tensor) -> None:
            normed.register_hook(layers_begin)
            head_begins()

        model.model.norm.register_forward_hook(norm_done)
        with counter:
            counter.part = "rest"
            parameters.zero_grad()
            parameters.grad_norm()
            counter.part = "layers"
            # On the CPU, fp16 would have other kernels than bf16.
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "fp16"):
                loss = model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:], "sum")
            loss.backward()
    return counter, saved


@functools.lru_cache(maxsize=8)
def _count_update(
    config: ModelConfig, name: str, dtype: torch.dtype
) -> tuple[Traffic, float, float]:
    """Count an update of all weights; returns its traffic, its peak and the optimizer's state."""
    one, two = (dataclasses.replace(config, layers=layers) for layers in (1, 2))
    traffic, peak, state = _count_small_update(one, name, dtype)
    more_traffic, _, more_state = _count_small_update(two, name, dtype)
    # Stacks take turns, so the peak is that of the largest: the vocabulary's, which stays, or one
    # of the layers, which grows with them.
    _, layer_peak, _ = _count_small_update(dataclasses.replace(one, vocab_size=1), name, dtype)
    further = config.layers - 1
    state += further * (more_state - state)
    return traffic.extrapolate(more_traffic, further), max(peak, config.layers * layer_peak), state


def _count_small_update(
    config: ModelConfig, name: str, dtype: torch.dtype
) -> tuple[Traffic, float, float]:
    model, counter = Transformer(config, seed=None, device="meta"), StepCounter()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(model)
        optimizer = Optimizer(FlatParameters(model), name, 0.1, dtype)
        counter.part, counter.phase = "optimizer", "optimizer"
        with counter:
            optimizer.step(1e-3, 1e-3)
        state = sum(tensor.nbytes for tensor in optimizer.state_dict().values())
    return counter.parts["optimizer"], counter.peaks["optimizer"], state


def _make_fake(model: Transformer) -> None:
    """Give a model without memory fake weights on the CPU, where autocast works."""
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(torch.empty(weight.shape))
    model._table = torch.empty(model._table.shape)


@contextmanager
def _chunks_of(device: str) -> Iterator[None]:
    """Let the head use the chunks of another device."""
    before = cross_entropy.CHUNK_ELEMENTS["cpu"]
    cross_entropy.CHUNK_ELEMENTS["cpu"] = cross_entropy.CHUNK_ELEMENTS[device]
    try:
        yield
    finally:
        cross_entropy.CHUNK_ELEMENTS["cpu"] = before
