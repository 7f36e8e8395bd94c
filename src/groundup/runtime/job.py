"""A step of a stage, declared once: its function, name and version, and what enters its key.

    SHARD = BuildStep("refine/shard", 7, refine_shard)

    job = SHARD.job(
        "books.1f2e",
        inputs={"collect": collected.content},
        filters=["gopher"],                            # argument, and in the key
        personal=Keyed(personal, personal.actions()),  # argument; the key has another form of it
        collected=Unkeyed(collected.path),             # argument that does not decide the bytes
    )

Every argument of the function enters the key under its own name, unless it is marked. So an
argument cannot be forgotten in the key: a changed value builds the artifact again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from groundup.runtime.store import Facts, Step


class _Absent:
    """Left out of the key."""


ABSENT = _Absent()


@dataclass(frozen=True)
class Keyed:
    """An argument that enters the key in another form, or not at all (ABSENT) for this value.

    ABSENT serves settings added later: leaving out their default keeps the keys of older runs.
    """

    argument: Any
    key: Any


@dataclass(frozen=True)
class Unkeyed:
    """An argument that does not decide the bytes: a path whose content is an input, a memory cap,
    a device.
    """

    argument: Any


@dataclass(frozen=True)
class Job:
    """A step and the function that builds it: `function(folder, **arguments)` returns the facts of
    the artifact.
    """

    step: Step
    function: Callable[..., Facts]
    arguments: Mapping[str, Any]
    # What progress counts, such as bytes.
    size: float = 1.0


@dataclass(frozen=True)
class BuildStep:
    """A step of a stage.

    Attributes:
        name: stage and step, such as `refine/shard`.
        version: raised by hand when equal arguments and inputs begin to give other bytes.
        function: writes the artifact into its first argument, a folder, and returns its facts.
    """

    name: str
    version: int
    function: Callable[..., Facts]

    def job(
        self,
        artifact: str,
        inputs: Mapping[str, str],
        size: float = 1.0,
        key_only: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> Job:
        """Return the job that builds one artifact of this step.

        Args:
            artifact: name among the artifacts of the step.
            inputs: name → content of what the function reads.
            size: what progress counts, such as bytes.
            key_only: settings that are no argument, such as the version of a library.
            arguments: of the function; marked with Keyed or Unkeyed where the key differs.

        Raises:
            TypeError: the arguments are not those of the function.
        """
        values, settings = {}, dict[str, Any]()
        for name, argument in arguments.items():
            if isinstance(argument, Unkeyed):
                values[name] = argument.argument
            elif isinstance(argument, Keyed):
                values[name] = argument.argument
                if argument.key is not ABSENT:
                    settings[name] = argument.key
            else:
                values[name] = settings[name] = argument
        inspect.signature(self.function).bind(None, **values)
        step = Step(
            self.name, artifact, self.version, settings | dict(key_only or {}), dict(inputs)
        )
        return Job(step, self.function, values, size)
