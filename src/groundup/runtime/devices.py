"""Accelerators by name, with the figures of their data sheets (devices.toml).

find_devices("4xa100-80gb")   four A100 of 80 GB in one machine
find_devices("m3-max-36gb")   an M3 Max with 36 GB of memory
sheet_flops("NVIDIA H100 80GB HBM3", "bf16")   989e12
"""

from __future__ import annotations

import dataclasses
import functools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from groundup.errors import GroundupError
from groundup.schema import decode, nearest

# More devices than this stand in several machines, whose network differs.
DEVICES_OF_A_MACHINE = 8
# A count, a name, and another size of memory than the table's.
_NAME = re.compile(r"(?:(\d+) *x *)?([a-z0-9-]+?)(?:-(\d+)gb)?", re.ASCII)


@dataclass(frozen=True)
class DeviceSpec:
    """Data sheet of one accelerator; devices.toml explains the units of the table."""

    title: str
    memory: float  # GB
    bf16: float  # TFLOP/s, dense
    fp32: float  # TFLOP/s
    bandwidth: float  # GB/s
    source: str
    share: float = 0.75  # of `bf16` that large matrix products reach
    link: float = 0.0  # GB/s in both directions together; 0 if there is only ever one device
    half: Literal["bf16", "fp16"] = "bf16"  # the 16-bit type that it multiplies at the rate `bf16`
    unified: bool = False  # whether the memory is the processor's too
    names: tuple[str, ...] = ()

    def flops(self, precision: str) -> float:
        """Return the operations per second of the data sheet, 0 for a type that it lacks."""
        if precision == "fp32":
            return self.fp32 * 1e12
        return self.bf16 * 1e12 if precision in (self.half, "fp16") else 0.0


@dataclass(frozen=True)
class DeviceGroup:
    """Equal accelerators in one machine."""

    name: str
    count: int
    spec: DeviceSpec


@functools.cache
def device_table() -> dict[str, DeviceSpec]:
    """Return all known accelerators by name."""
    text = resources.files(__package__).joinpath("devices.toml").read_text("utf-8")
    table = tomllib.loads(text)
    return {
        name: decode(DeviceSpec, entry, f"devices.toml: {name}") for name, entry in table.items()
    }


def find_devices(name: str) -> DeviceGroup:
    """Return the devices that a name such as `8xh100` means.

    Raises GroundupError if it is unknown, which names the nearest, or means too many.
    """
    table, wanted = device_table(), name.strip().lower()
    match = _NAME.fullmatch(wanted)
    count, base, memory = match.groups() if match else (None, wanted, None)
    whole = f"{base}-{memory}gb" if memory else base
    if whole in table:
        spec = table[whole]
    elif base in table and memory and table[base].unified:
        spec = dataclasses.replace(table[base], memory=float(memory))
    else:
        # "a100" is nearer to both A100 than to "h100".
        longer = [known for known in table if known.startswith(f"{whole}-")]
        raise GroundupError(f'--device "{name}" is unknown{nearest(whole, longer or list(table))}')
    number, most = int(count or 1), DEVICES_OF_A_MACHINE if spec.link else 1
    if not 1 <= number <= most:
        many = f"1 to {most} {spec.title}" if most > 1 else f"one {spec.title}"
        raise GroundupError(f'--device "{name}": plan knows machines with {many}')
    return DeviceGroup(f"{number}x{whole}", number, spec)


def reported_device(reported: str) -> DeviceSpec | None:
    """Return the device that PyTorch reports under this name; None if the table lacks it."""
    specs = device_table().values()
    # The longest part that fits: "NVIDIA L4" is in "NVIDIA L40S", too.
    known = [(len(part), s) for s in specs for part in s.names if part in reported]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def sheet_flops(reported: str, precision: str) -> float:
    """Return the data-sheet rate of a device as PyTorch reports its name; 0 if it is unknown."""
    spec = reported_device(reported)
    return spec.flops(precision) if spec else 0.0
