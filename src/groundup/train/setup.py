"""Everything that the training loop needs to know, resolved: `RUN/train/train.json`. A torchrun
process reads only this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.errors import GroundupError
from groundup.model.config import ModelConfig
from groundup.recipe import Train
from groundup.runtime.files import read_json, write_json
from groundup.runtime.store import Step
from groundup.schema import decode, settings
from groundup.train.hardware import Machine

PLAN = "train.json"
# steps = "auto": not more passes than are worth their time (see model/presets.py), and minutes
# without a GPU.
EPOCHS, TOKENS_PER_PARAMETER, CPU_SECONDS = 4, 20, 300.0


def automatic_tokens(
    epoch_tokens: int, config: ModelConfig, device: str, tokens_a_second: float
) -> int:
    """Return the tokens that `steps = "auto"` trains on."""
    limit = (
        CPU_SECONDS * tokens_a_second
        if device == "cpu"
        else TOKENS_PER_PARAMETER * config.parameter_count()
    )
    return int(min(EPOCHS * epoch_tokens, limit))


@dataclass(frozen=True)
class Plan:
    """One training, resolved.

    Attributes:
        key_parts: settings and inputs that decide the weights; another key is another training.
        steps: the end step.
        weights: share of training tokens by source, relative to its size.
        base: what step 0 takes its weights from: folder, name, license and content; empty where
            they are drawn.
        token_ids: ids that the tokenizer has; a model from elsewhere may have more.
        tokens_per_second: measured by the probe, for the record.
        recipe: file that the [train] table can be read again from, with `overrides`; "" where there
            is none.
    """

    config: ModelConfig
    train: Train
    machine: Machine
    seed: int
    steps: int
    weights: Mapping[str, float] = field(default_factory=dict)
    key_parts: Step = field(default_factory=lambda: Step("train", "model", 0))
    tokens_per_second: float = 0.0
    recipe: str = ""
    overrides: tuple[str, ...] = ()
    base: Mapping[str, str] = field(default_factory=dict)
    token_ids: int = 0

    @property
    def vocabulary(self) -> int:
        """Ids that token shards may hold, and the type that they are stored in."""
        return self.token_ids or self.config.vocab_size

    @property
    def sequences(self) -> int:
        """Sequences of a step: batch_tokens in whole windows, whatever the machine."""
        return max(1, round(self.train.batch_tokens / self.config.context))

    def origin(self) -> dict[str, str]:
        """Return in words where the first weights come from, without folders of this machine;
        nothing where they are drawn.
        """
        if not self.base:
            return {}
        return {
            "name": self.base["name"],
            "license": self.base["license"] or "not stated",
            "sha256": self.base["content"],
        }

    def write(self, folder: Path) -> None:
        """Write train.json."""
        table = {
            "key": self.key_parts.key,
            "version": self.key_parts.version,
            "settings": dict(self.key_parts.settings),
            "inputs": dict(self.key_parts.inputs),
            "model": dataclasses.asdict(self.config),
            "train": settings(self.train),
            "machine": dataclasses.asdict(self.machine),
            "seed": self.seed,
            "steps": self.steps,
            "weights": dict(self.weights),
            "tokens_per_second": self.tokens_per_second,
            "recipe": self.recipe,
            "overrides": list(self.overrides),
            "base": dict(self.base),
            "token_ids": self.token_ids,
        }
        write_json(folder / PLAN, table)

    @classmethod
    def read(cls, folder: Path) -> Plan | None:
        """Return the plan of a training folder, or None where none was begun.

        Raises:
            GroundupError: train.json was written by something else.
        """
        table = read_json(folder / PLAN)
        if table is None:
            return None
        try:
            return cls._from(table, str(folder / PLAN))
        except (KeyError, TypeError) as error:
            raise GroundupError(
                f"{folder / PLAN}: cannot be understood ({error}); move it away to begin anew"
            ) from None

    @classmethod
    def _from(cls, table: Mapping[str, Any], where: str) -> Plan:
        return cls(
            config=decode(ModelConfig, table["model"], where),
            train=decode(Train, table["train"], where),
            machine=decode(Machine, table["machine"], where),
            seed=table["seed"],
            steps=table["steps"],
            weights=table["weights"],
            key_parts=Step("train", "model", table["version"], table["settings"], table["inputs"]),
            tokens_per_second=table["tokens_per_second"],
            recipe=table["recipe"],
            overrides=tuple(table["overrides"]),
            base=table.get("base", {}),
            token_ids=table.get("token_ids", 0),
        )
