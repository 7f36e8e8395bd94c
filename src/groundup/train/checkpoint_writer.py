"""Writes checkpoints in the background, from copies in buffers that stand ready.

    training thread of a rank      writing thread of each rank            of rank 0
    wait for the last one
    copy into the buffers ───────► optimizer's state: write, hash, fsync
    next step                      .rank-00001.json: size and digest ───► all ranks are done
    …                                                                     one rename: it is there
                                                                          best.json, prune

Training waits for the copy only, unless the checkpoint before is still being written. Rank 0 also
writes the weights, which every rank has whole. The files grow in a staging folder on the file
system that all ranks share, and are a checkpoint when rank 0 renames it: a kill before that leaves
the one before. Ranks tell each other that they are done by files, since a collective would have to
keep its place among those of the training.

An example: 354 million parameters with AdamW on two ranks. Rank 0 copies 1.4 GB of weights and 1.4
of state, rank 1 its 1.4 of state; their buffers take as much memory for as long as they train.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import os
import shutil
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from groundup.artifacts.checkpoints import STATE
from groundup.errors import StoreError, is_full_disk
from groundup.model.hf_io import WEIGHTS, save_config
from groundup.model.transformer import Transformer
from groundup.runtime.files import read_json_object, write_json
from groundup.runtime.store import COMMITTING, Facts, Store, commit
from groundup.train.distributed import DistributedContext
from groundup.train.optimizer import FlatParameters, Optimizer
from groundup.train.state import Checkpoints, TrainState, optimizer_file

# Names of types in safetensors.
DTYPES = {torch.float32: "F32", torch.int64: "I64"}
# Bytes that are written and hashed at once.
CHUNK = 16 << 20
# How long rank 0 waits for the files of other ranks after an error, seconds.
PATIENCE = 10.0


class AbandonedError(Exception):
    """A checkpoint that is no longer wanted, or that another rank did not finish."""


class Buffers:
    """Memory of the host that stands ready for a copy of this rank's part of a checkpoint."""

    def __init__(
        self, parameters: FlatParameters, optimizer: Optimizer, with_weights: bool = True
    ) -> None:
        self._optimizer = optimizer
        self._sources = {name: own for name, (_, own) in optimizer.state.items()}
        if with_weights:
            self._sources[WEIGHTS] = parameters.weights
        # Zeros and not empty: pages that were never touched would cost the first copy seconds.
        self._copies = {
            name: torch.zeros(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)
            for name, source in self._sources.items()
        }
        self._steps = torch.tensor(0)

    @property
    def nbytes(self) -> int:
        """Size of all buffers."""
        return sum(copied.nbytes for copied in self._copies.values())

    def take(self) -> None:
        """Copy what the optimizer and the model have now."""
        for name, source in self._sources.items():
            self._copies[name].copy_(source, non_blocking=True)
        self._steps.fill_(self._optimizer.steps)
        if any(source.is_cuda for source in self._sources.values()):
            torch.cuda.synchronize()

    def weights(self, model: Transformer) -> dict[str, Tensor]:
        """Return views of the copied weights by name."""
        flat = self._copies[WEIGHTS]
        return {
            name: flat[weight.storage_offset() :][: weight.numel()].view(weight.shape)
            for name, weight in model.named_parameters()
        }

    def state(self) -> dict[str, Tensor]:
        """Return the copy of the optimizer's state, as `Optimizer.state_dict`."""
        state = {name: own for name, own in self._copies.items() if name != WEIGHTS}
        return state | {"steps": self._steps}


class CheckpointWriter:
    """Writes the checkpoints of one rank, one at a time, while it trains on.

    In a `with` block; at its end what was begun is finished.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        model: Transformer,
        parameters: FlatParameters,
        optimizer: Optimizer,
        ranks: DistributedContext,
    ) -> None:
        self.checkpoints, self.model, self.ranks = checkpoints, model, ranks
        self.store = Store(checkpoints.root)
        self._buffers = Buffers(parameters, optimizer, with_weights=ranks.is_first)
        # Of this process; the same for all ranks.
        self._begun = 0
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        # When writing is given up, and when waiting for the files of other ranks is.
        self._give_up, self._wait_until = math.inf, math.inf

    def start(
        self, state: TrainState, facts: Facts, seconds: float, then: Callable[[TrainState], object]
    ) -> None:
        """Copy the checkpoint of `state`, and begin to write it; the one before is finished first.

        `facts` and `seconds` go into the manifest. Rank 0 calls `then` with a copy of the state
        when the checkpoint is there, in the thread that writes.
        """
        self.wait()
        self._begun += 1
        state = copy.deepcopy(state)
        self._buffers.take()

        def write() -> None:
            try:
                self._write(state, facts, seconds)
                if self.ranks.is_first:
                    then(state)
            except AbandonedError:
                return
            except BaseException as error:
                # Raised again in the thread that trains, whatever it is.
                self._error = self._explained(error, state.step)

        self._thread = threading.Thread(target=write, name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the error of the checkpoint that is being written, if it has failed.

        StoreError if the disk is full; what is there already is kept.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until the checkpoint that is being written is there; raises as `check`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def clean(self) -> None:
        """Delete what a killed training has left in the staging folders of checkpoints."""
        self.store.discard(self.store.staging.glob("step-*"))

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.wait()
            return
        # The process is to end at once, or the other ranks may be lost.
        if not issubclass(kind, Exception):
            self._give_up = time.monotonic()
        self._wait_until = time.monotonic() + PATIENCE
        if self._thread is not None:
            self._thread.join()

    def _write(self, state: TrainState, facts: Facts, seconds: float) -> None:
        """Write this rank's files; rank 0 waits for those of the others and commits all."""
        target, own = self.checkpoints.path(state.step), optimizer_file(*self._place)
        # A signal may save a step again, and a rank may be ahead of rank 0: each has a folder.
        folder = self.store.staging / f"{target.name}.{self._begun}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            files: dict[str, Mapping[str, Any]] = {}
            files[own] = write_tensors(folder / own, self._buffers.state(), self._proceed)
            if not self.ranks.is_first:
                write_json(folder / _note_of(self.ranks.rank), files)
                return
            # transformers refuses weights without this metadata.
            weights, kind = self._buffers.weights(self.model), {"format": "pt"}
            files[WEIGHTS] = write_tensors(folder / WEIGHTS, weights, self._proceed, kind)
            save_config(folder, self.model.config)
            write_json(folder / STATE, dataclasses.asdict(state))
            # So that the folder loads anywhere.
            for file in sorted((self.checkpoints.root / "tokenize").glob("*token*.json")):
                shutil.copyfile(file, folder / file.name)
            files |= self._files_of_others(folder)
            manifest: dict[str, Any] = {"step": "train/checkpoint", "name": target.name}
            manifest |= {"key": self.checkpoints.key, "settings": {}, "inputs": {}}
            commit(folder, target, manifest | {"facts": facts, "seconds": round(seconds, 3)}, files)
        finally:
            if self.ranks.is_first:
                for name in (folder.name, folder.name + COMMITTING):
                    shutil.rmtree(folder.with_name(name), ignore_errors=True)

    @property
    def _place(self) -> tuple[int, int]:
        return self.ranks.rank, self.ranks.world

    def _files_of_others(self, folder: Path) -> dict[str, Mapping[str, Any]]:
        """Wait for the other ranks; return size and digest of their files."""
        files: dict[str, Mapping[str, Any]] = {}
        for rank in range(1, self.ranks.world):
            note = folder / _note_of(rank)
            while not (written := read_json_object(note)):
                self._proceed()
                if time.monotonic() > self._wait_until:
                    raise AbandonedError
                time.sleep(0.02)
                # Listing the folder makes NFS look again.
                sorted(folder.iterdir())
            files |= written
            note.unlink()
        return files

    def _proceed(self) -> None:
        """Raise AbandonedError if the process is to end at once."""
        if time.monotonic() >= self._give_up:
            raise AbandonedError

    def _explained(self, error: BaseException, step: int) -> BaseException:
        """Return an error of one line for a full disk."""
        if not is_full_disk(error):
            return error
        kept = ", ".join(f"step-{step}" for step in self.checkpoints.steps()) or "none yet"
        return StoreError(
            f"{self.checkpoints.root / 'train'}: the disk is full, step {step} could not be"
            f" saved; checkpoints: {kept}; free some space and run again"
        )


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    proceed: Callable[[], object] = lambda: None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write a safetensors file, force it to disk, and return its size and SHA-256.

    The bytes are those of safetensors' own `save_file`, which would copy all tensors first and let
    no other thread run meanwhile. `proceed` is called before each piece, and may raise to stop it.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        shape, offsets = list(tensor.shape), [begin, end]
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        parts = [memoryview(struct.pack("<Q", len(text)) + text)]
        for view in (*parts, *(bytes_of(tensor) for _, tensor in ordered)):
            for begin in range(0, len(view), CHUNK):
                proceed()
                piece = view[begin : begin + CHUNK]
                file.write(piece)
                digest.update(piece)
            size += len(view)
        file.flush()
        os.fsync(file.fileno())
    # As `commit` leaves files.
    path.chmod(0o444)
    return {"size": size, "sha256": digest.hexdigest()}


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor in memory, which are not copied."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _note_of(rank: int) -> str:
    """Name of the file by which a rank says that its files are written."""
    return f".rank-{rank:05d}.json"
