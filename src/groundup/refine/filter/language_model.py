"""The language model of py3langid, laid out for the kernel that applies it.

It is langid.py (Lui and Baldwin 2012), retrained on 139 languages: an automaton over bytes finds
features, which are n-grams, and naive Bayes weighs them. Its tables are larger than the caches of a
processor, so what decides the speed is how many of their lines a byte of text touches:

    py3langid    state → row → next state by byte, state → feature       two reads in a chain
    here         row → next row and state in it, by byte                 one read in a chain
    py3langid    weights as float32                                      9 cache lines a feature
    here         weights as int16: they are multiples of 1/512           5 cache lines a feature

Unpacking the file of the package takes most of a second. So the tables are written once beside the
compiled kernels, and mapped from there: workers share one copy in memory.
"""

from __future__ import annotations

import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from groundup.artifacts.arrays import Array
from groundup.recipe import MEMBERS
from groundup.refine.kernels import cache_folder

# A weight is a multiple of one by SCALE, so it fits an int16 exactly.
SCALE = 512
STATE_BITS = 16
LAYOUT = 1  # of the tables in the cache
_NAMES = ("moves", "first", "features", "weights", "priors", "code_of", "codes", "start")


class LanguageModel(NamedTuple):
    """Tables of the automaton and of naive Bayes; states of one row are numbered one by one."""

    moves: Array  # uint32 [rows, 256]: by byte the next row, and in the low bits the state in it
    first: Array  # int32 [rows]: the first state of each row
    features: Array  # int32 [states]: the feature that each state completes, or -1
    weights: Array  # int16 [features, classes]: times SCALE
    priors: Array  # float32 [classes]
    code_of: Array  # int32 [classes]: index of the code of each class
    codes: tuple[str, ...]  # ISO 639 codes, sorted
    start: int  # row and state of the beginning of a text, as in `moves`


@cache
def language_model() -> LanguageModel:
    """Return the model, mapped from the cache where that can be written."""
    folder = cache_folder() / f"language-{LAYOUT}-{version('py3langid')}"
    if not folder.is_dir():
        _write(folder)
    arrays = _read(folder) if folder.is_dir() else _arrays()
    codes, start = tuple(arrays.pop("codes").tolist()), int(arrays.pop("start")[0])
    return LanguageModel(**arrays, codes=codes, start=start)


def _read(folder: Path) -> dict[str, Array]:
    paths = {name: folder / f"{name}.npy" for name in _NAMES}
    return {name: np.load(path, mmap_mode="r").view(np.ndarray) for name, path in paths.items()}


def _write(folder: Path) -> None:
    """Write the tables to a folder, which appears with all of them or not at all."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as name:
            written = Path(name) / "written"
            written.mkdir()
            for table, array in _arrays().items():
                np.save(written / f"{table}.npy", array)
            written.rename(folder)
    except OSError:
        # It cannot be written, or another worker was faster.
        return


def _arrays() -> dict[str, Array]:
    """Return the tables from the file of the package, read-only like those that are mapped."""
    from py3langid.langid import MODEL_DIR, MODEL_FILE
    from py3langid.modelio import load_model

    weights, priors, classes, moves, rows, features = load_model(MODEL_DIR / MODEL_FILE)
    names = [MEMBERS.get(name, name) for name in classes]
    codes = sorted(set(names))
    row_of = np.asarray(rows, np.int64)
    # States ordered by row; `within` is the number of a state among those of its row.
    order = np.argsort(row_of, kind="stable")
    first = np.searchsorted(row_of[order], np.arange(row_of.max() + 1))
    within = np.empty(len(row_of), np.int64)
    within[order] = np.arange(len(order)) - first[row_of[order]]
    packed = (row_of << STATE_BITS | within).astype(np.uint32)
    scaled = np.rint(np.asarray(weights, np.float32) * SCALE).astype(np.int16)
    if max(row_of.max(), within.max()) >> STATE_BITS or (scaled / SCALE != weights).any():
        raise ValueError(f"py3langid {version('py3langid')} has a model of another form")
    arrays: dict[str, Any] = {
        "moves": packed[np.asarray(moves, np.int64)].reshape(-1, 256),
        "first": first.astype(np.int32),
        "features": np.asarray(features, np.int32)[order],
        "weights": scaled,
        "priors": np.asarray(priors, np.float32),
        "code_of": np.array([codes.index(name) for name in names], np.int32),
        "codes": np.array(codes),
        "start": packed[:1],
    }
    for array in arrays.values():
        array.flags.writeable = False
    return arrays
