"""The benchmark of a GPU machine: its CPU form, and what it keeps when parts fail."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from benchmarks import gpu

ROOT = Path(__file__).parents[2]
# What a machine with PyTorch and its usual companions lacks.
MISSING = (
    "orjson tomli_w chardet ftfy fastwarc resiliparse trafilatura py3langid protego"
    " pypdfium2 python_calamine"
)
BARE = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in "{MISSING}".split():
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from benchmarks import gpu
from pathlib import Path
gpu.main(Path(sys.argv[1]))
"""
TINY = gpu.read_case("tiny", "tiny", "cpu", compiled=False)


def test_a_machine_with_little_more_than_pytorch_runs_it(tmp_path: Path) -> None:
    """All parts run, none fails, and a CPU's figures are not written as those of a GPU."""
    path = tmp_path / "gpu.json"
    command = [sys.executable, "-c", BARE, str(path)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    printed = [json.loads(line) for line in run.stdout.splitlines()]
    exact, ours, theirs = (found for part in printed for found in part.values())
    assert exact == {
        "two equal trainings give equal weights": True,
        "largest difference of logits to the CPU's, float32": 0.0,
    }
    assert ours["tokens/s"] > 0 and ours["planned tokens/s"] > 0
    assert ours["planned peak memory (GB)"] > 0.2
    assert "tokens/s" in theirs or "skipped" in theirs
    assert not path.exists()


def test_all_that_a_gpu_measures_is_known_by_name() -> None:
    names = [name for name, _ in gpu.parts("cuda")]
    assert names[:5] == [
        "exactness",
        "base-300m, eager",
        "base-300m, compiled",
        "1b, eager",
        "1b, compiled",
    ]
    assert sum("transformers" in name for name in names) == 4
    case = gpu.read_case("1b", "1b", "cuda", compiled=True)
    assert (case.config.width, case.config.context, case.sequences) == (2048, 2048, 64)


def test_a_part_that_fails_dies_or_takes_too_long_says_so() -> None:
    def fails() -> gpu.Figures:
        raise ValueError("no")

    assert gpu.run_apart(lambda: {"a": 1}, 60) == {"a": 1}
    assert gpu.run_apart(fails, 60) == {"failed": "ValueError: no"}
    assert gpu.run_apart(lambda: os._exit(3), 60) == {"failed": "its process ended with code 3"}
    slow = gpu.run_apart(lambda: time.sleep(600), 0)  # type: ignore[arg-type, return-value]
    assert slow == {"skipped": "it did not end in the 0 s that were left"}


def test_a_run_that_is_cut_off_keeps_the_parts_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gpu.json"

    def parts(device: str) -> Iterator[tuple[str, Callable[[], gpu.Figures]]]:
        assert device == "cuda"
        yield "first", lambda: {"tokens/s": 7}
        yield "second", lambda: {"kept": json.loads(path.read_text())["figures"]}
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "device_here", lambda: {"device": "NVIDIA H200"})
    monkeypatch.setattr(gpu, "parts", parts)
    with pytest.raises(KeyboardInterrupt):
        gpu.main(path)
    figures = json.loads(path.read_text())["figures"]
    assert figures == {"first: tokens/s": 7, "second: kept": {"first: tokens/s": 7}}


def test_no_part_begins_when_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "BUDGET", gpu.LEAST)
    monkeypatch.setattr(gpu, "parts", lambda device: [("late", lambda: os._exit(1))])
    gpu.main(tmp_path / "gpu.json")
    assert json.loads(capsys.readouterr().out) == {"late": {"skipped": "the time was over"}}


def test_what_does_not_fit_is_tried_with_half_the_micro_batch() -> None:
    tried = []

    def measure(case: gpu.Case, size: int) -> gpu.Figures:
        tried.append(size)
        if size > 1:
            raise torch.OutOfMemoryError
        return {"tokens/s": 7}

    assert gpu.fitting(measure, TINY) == {"micro-batch (sequences)": 1, "tokens/s": 7}
    assert tried == [4, 2, 1]
