"""The table [evaluate]; an entry of its `benchmarks` names a benchmark, or a file of questions.

    hellaswag              from its public place, at the commit that is pinned here
    arc_easy=exams/arc     a file or folder in any layout of that benchmark
    mmlu:5=exams/mmlu      with five examples before each question
    exams/mine.jsonl       questions in a layout of artifacts/questions.py

The stage evaluate knows how each benchmark is asked (evaluate/tasks.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from groundup.schema import check

_ENTRY = re.compile(
    r"(?P<task>[a-z][a-z0-9_]*)(?::(?P<shots>\d{1,3}))?(?:=(?P<path>.+))?", re.DOTALL
)
_HUB = "hf://datasets/"
_SUPER_GLUE = "aps/super_glue@3de24cf8022e94f4ee4b9d55a6f539891524d646"
_ARC = "allenai/ai2_arc@210d026faf9955653af8916fad021475a3f00453"

# Folder at a pinned commit of the Hugging Face Hub, and the files in it that are asked. "" has no
# public place that is pinned, so it needs a path.
PUBLIC: dict[str, tuple[str, str]] = {
    "arc_challenge": (f"{_ARC}/ARC-Challenge", "test-*"),
    "arc_easy": (f"{_ARC}/ARC-Easy", "test-*"),
    "blimp": ("nyu-mll/blimp@877fba0801ffb7cbd8c39c1ff314a46f053f6036", "*/train-*"),
    "boolq": (f"{_SUPER_GLUE}/boolq", "validation-*"),
    "commonsense_qa": (
        "tau/commonsense_qa@94630fe30dad47192a8546eb75f094926d47e155/data",
        "validation-*",
    ),
    "copa": (f"{_SUPER_GLUE}/copa", "validation-*"),
    "core": ("", ""),
    "gsm8k": ("openai/gsm8k@740312add88f781978c0658806c59bc2815b9866/main", "t*"),
    "hellaswag": ("Rowan/hellaswag@218ec52e09a7e7462a5400043bb9a69a41d06b76/data", "validation-*"),
    "humaneval": ("", ""),
    "lambada": ("EleutherAI/lambada_openai@900124bf3b8235c6daf21033af9948b3f07346c4/default", "**"),
    "mmlu": ("cais/mmlu@c30699e8356da336a370243923dbaf21066bb9fe/all", "[dt]e[sv]*"),
    "openbookqa": ("allenai/openbookqa@388097ea7776314e93a529163e0fea805b8a6454/main", "test-*"),
    "piqa": ("baber/piqa@142f6d7367fd9877f0fb3b5734ea6a545f54cdd1", "*validation*"),
    "sciq": ("allenai/sciq@2c94ad3e1aafab77146f384e23536f97a4849815/data", "test-*"),
    "siqa": ("lighteval/siqa@54c6a1f8cb6daf4f5abf24a601852612fb35eb25", "**/*validation*"),
    "triviaqa": (
        "mandarjoshi/trivia_qa@0f7faf33a3908546c6fd5b73a660e0f8ff173c2f/rc.nocontext",
        "validation-*",
    ),
    "wikitext": (
        "Salesforce/wikitext@b08601e04326c79dfdd32d625aee71d232d685c3/wikitext-2-raw-v1",
        "test-*",
    ),
    "winograd": ("", ""),
    "winogrande": (
        "allenai/winogrande@01e74176c63542e6b0bcb004dcdea22d94fb67b5/winogrande_xl",
        "validation-*",
    ),
}
# Their patterns have the file of examples, too; of the others the whole folder has it.
_WITH_EXAMPLES = {"gsm8k", "mmlu"}
# Names that the field also uses.
_ALIASES = {
    "lambada_openai": "lambada",
    "openbook_qa": "openbookqa",
    "social_iqa": "siqa",
    "trivia_qa": "triviaqa",
    "wsc273": "winograd",
}
NOT_RUN = "its answers are programs, and groundup runs no generated code"


@dataclass(frozen=True, slots=True)
class BenchmarkEntry:
    """An entry of the recipe; `task` is "" for a file of questions, `shots` None for the usual."""

    path: str
    task: str = ""
    shots: int | None = None

    @property
    def label(self) -> str:
        """Name beside its figures."""
        return self.task if self.shots is None else f"{self.task}:{self.shots}"


def parse_benchmark(text: str) -> BenchmarkEntry:
    """Return what an entry names; ValueError if it names a benchmark that cannot be asked so."""
    match = _ENTRY.fullmatch(text)
    task = _ALIASES.get(match["task"], match["task"]) if match else ""
    if match is None or (task not in PUBLIC and not (match["path"] or match["shots"])):
        return BenchmarkEntry(text)
    if task not in PUBLIC:
        raise ValueError(f'benchmarks: "{text}": {task} is none of {", ".join(PUBLIC)}')
    if task == "humaneval":
        raise ValueError(f'benchmarks: "{text}": humaneval is not asked: {NOT_RUN}')
    shots = int(match["shots"]) if match["shots"] else None
    folder, pattern = PUBLIC[task]
    if not match["path"] and not folder:
        raise ValueError(f'benchmarks: "{text}": no public place is pinned; write {task}=PATH')
    inside = folder if shots and task not in _WITH_EXAMPLES else f"{folder}/{pattern}"
    return BenchmarkEntry(match["path"] or _HUB + inside, task, shots)


@dataclass(frozen=True, slots=True)
class Evaluate:
    """What is measured on the trained model."""

    # Benchmarks of the field by name ("hellaswag" fetches it, "arc_easy=PATH" reads a file or
    # folder, "mmlu:5=PATH" shows five examples first); or JSONL files of questions, folders or
    # globs of them, or names of sources of kind "evaluation". docs/evaluation.md lists them all.
    benchmarks: tuple[str, ...] = ()
    # Questions of each benchmark to ask; 0 asks all.
    limit: int = 0
    # Held-out passages in the test that chooses the next passage out of four.
    passages: int = 200
    # Tokens of each sample.
    sample_tokens: int = 100

    def __post_init__(self) -> None:
        for entry in self.benchmarks:
            parse_benchmark(entry)
        fine = self.limit >= 0 and self.passages >= 0 and self.sample_tokens >= 1
        check(fine, "limit, passages and sample_tokens must not be negative")
