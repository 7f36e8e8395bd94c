"""Renew the locks in requirements/, and check that each package has a binary wherever it is wanted.

`make lock` calls it: uv resolves pyproject.toml once for all Pythons and platforms. Pinned versions
stay as long as they fit; `make lock ARGS=--upgrade` takes the newest, and
`ARGS="--upgrade-package NAME"` one of them.

- `lock.txt`: all extras, for work on groundup.
- `lock-wheel.txt`: what the wheel needs with the extras `export` and `serve`; the same versions.

PyTorch and the CUDA libraries are in neither: their build differs by machine (TORCH in the
Makefile).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.markers import Marker

PROJECT = Path(__file__).parent.parent
REQUIREMENTS = PROJECT / "requirements"
LOCK, WHEEL = REQUIREMENTS / "lock.txt", REQUIREMENTS / "lock-wheel.txt"

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# uv's name of a platform → sys_platform, platform_machine. macOS on Intel is missing because
# PyTorch has had no wheel for it since 2.3.
PLATFORMS = {
    "x86_64-manylinux_2_28": ("linux", "x86_64"),
    "aarch64-manylinux_2_28": ("linux", "aarch64"),
    "aarch64-apple-darwin": ("darwin", "arm64"),
}
# uv repeats the environments of pyproject.toml in each marker; one of these says the same.
MARKERS = (
    "",
    "sys_platform == 'darwin'",
    "sys_platform == 'linux'",
    "sys_platform == 'linux' and platform_machine == 'x86_64'",
)
# What PyTorch's own rule installs.
TORCH_RULE = re.compile(r"(torch|triton|cuda-.*|nvidia-.*)")
HEAD = """\
# Made by `make lock` from pyproject.toml, for Python {pythons} on Linux and macOS. Do not edit.
# torch=={torch} is installed before, by its own rule (TORCH in the Makefile).
"""


@dataclass(frozen=True)
class Pin:
    """One package of a lock: its hashes are `sha256:...`, `via` names what wants it."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    via: tuple[str, ...]

    @property
    def requirement(self) -> str:
        """The line without hashes."""
        return f"{self.name}=={self.version}" + (f" ; {self.marker}" if self.marker else "")


def parse(text: str) -> list[Pin]:
    """Read a lock as uv or `render` writes it."""
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.M)
    return [_pin(block) for block in blocks if re.match(r"[A-Za-z0-9]", block)]


def _pin(block: str) -> Pin:
    head = re.match(r"(\S+)==(\S+)(?: ; (.*?))?(?: \\)?\n", block)
    if not head:
        raise ValueError(f"not a pinned requirement: {block.splitlines()[0]}")
    hashes = re.findall(r"--hash=(\S+)", block)
    # uv writes one source after "# via" and several below it; we write them with commas. "-c" names
    # a file of constraints.
    via = re.findall(r"^    #(?: via|  ) +(\S.*)$", block, re.M)
    names = [name for line in via for name in line.split(", ")]
    wanted_by = tuple(name for name in names if not name.startswith("-c "))
    return Pin(head[1], head[2], head[3] or "", tuple(hashes), wanted_by)


def render(pins: list[Pin]) -> str:
    """Write a lock as pip reads it."""
    lines = [HEAD.format(pythons=f"{PYTHONS[0]} to {PYTHONS[-1]}", torch=torch_version())]
    for pin in pins:
        hashes = [f"    --hash={digest}" for digest in pin.hashes]
        lines.append(" \\\n".join([pin.requirement, *hashes]) + "\n")
        lines.append(f"    # via {', '.join(pin.via)}\n")
    return "".join(lines)


def torch_version() -> str:
    """The version of PyTorch that the Makefile installs."""
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    if not (rule := re.search(r"^TORCH \?= torch==(\S+)$", makefile, re.M)):
        sys.exit("Makefile: no line 'TORCH ?= torch==VERSION'")
    return rule[1]


def environments() -> Iterator[dict[str, str]]:
    """Yield the markers' variables for each Python on each platform."""
    for python in PYTHONS:
        for platform, machine in PLATFORMS.values():
            yield {
                "python_version": python,
                "python_full_version": f"{python}.9",
                "sys_platform": platform,
                "platform_system": platform.capitalize(),
                "platform_machine": machine,
                "os_name": "posix",
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
            }


def short_marker(marker: str) -> str:
    """Return the first of MARKERS that holds in the same environments, else the marker itself.

    Where a package is wanted everywhere this is none: on a Python that is too new pip then fails,
    and does not skip every package with a notice.
    """

    def holds(text: str) -> list[bool]:
        return [not text or Marker(text).evaluate(each) for each in environments()]

    return next((short for short in MARKERS if holds(short) == holds(marker)), marker)


def settings() -> dict[str, str]:
    """uv's environment: the index and the certificates that pip is configured with, and a macOS."""
    variables = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"}  # PyTorch's own floor.
    for name, key in (("UV_DEFAULT_INDEX", "index-url"), ("SSL_CERT_FILE", "cert")):
        configured = [sys.executable, "-m", "pip", "config", "get", f"global.{key}"]
        done = subprocess.run(configured, capture_output=True, text=True, check=False)
        value = os.environ.get(f"PIP_{key.upper().replace('-', '_')}") or done.stdout.strip()
        if value:
            variables.setdefault(name, value)
    return variables


def compile_with_uv(*arguments: str) -> str:
    """Run `uv pip compile` in the project and return its messages; they are empty on success."""
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--only-binary",
        ":all:",
        *arguments,
    ]
    done = subprocess.run(
        command, cwd=PROJECT, env=settings(), capture_output=True, text=True, check=False
    )
    return done.stderr if done.returncode else ""


def resolve(target: Path, constraints: Path, *arguments: str) -> list[Pin]:
    """Resolve pyproject.toml for all environments; pins that are in `target` stay if they fit.

    Returns the pins as uv wrote them, PyTorch and CUDA among them.
    """
    universal = ["--universal", "--python-version", PYTHONS[0], "--fork-strategy", "fewest"]
    written = ["--generate-hashes", "--no-header", "--no-emit-index-url", "-o", str(target)]
    limits = ["-c", str(constraints), "pyproject.toml"]
    if failure := compile_with_uv(*universal, *written, *limits, *arguments):
        sys.exit(failure)
    return parse(target.read_text(encoding="utf-8"))


def write_locks(arguments: list[str]) -> list[Pin]:
    """Write both locks; return the pins of the larger one."""
    with tempfile.TemporaryDirectory() as folder:
        everything, constraints = Path(folder, "lock.txt"), Path(folder, "torch.txt")
        constraints.write_text(f"torch=={torch_version()}\n", encoding="utf-8")
        if LOCK.exists():
            everything.write_text(LOCK.read_text(encoding="utf-8"), encoding="utf-8")
        pins = resolve(everything, constraints, "--all-extras", *arguments)
        extras = ["--extra", "export", "--extra", "serve"]
        wheel = resolve(Path(folder, "wheel.txt"), everything, *extras)
    for path, resolved in ((LOCK, pins), (WHEEL, wheel)):
        locked = [
            replace(pin, marker=short_marker(pin.marker))
            for pin in resolved
            if not TORCH_RULE.fullmatch(pin.name)
        ]
        path.write_text(render(locked), encoding="utf-8")
        print(f"{path.relative_to(PROJECT)}  {len(locked)} packages")
    return parse(LOCK.read_text(encoding="utf-8"))


def without_binary(pins: list[Pin]) -> list[str]:
    """Return the failures: a Python, a platform and what uv says of it. PyTorch is checked too."""
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        versions = Path(folder, "versions.txt")
        lines = [pin.requirement for pin in pins] + [f"torch=={torch_version()}"]
        versions.write_text("\n".join(lines) + "\n", encoding="utf-8")
        for python in PYTHONS:
            for platform in PLATFORMS:
                target = ["--python-version", python, "--python-platform", platform]
                output = ["--no-deps", "-o", str(Path(folder, f"{python}-{platform}.txt"))]
                if failure := compile_with_uv(*target, *output, str(versions)):
                    failures.append(f"Python {python}, {platform}: {failure}")
    return failures


def main() -> None:
    """Write the locks, and fail where a package has no binary."""
    pins = write_locks(sys.argv[1:])
    if failures := without_binary(pins):
        sys.exit("\n".join(failures))
    print(f"binaries for Python {', '.join(PYTHONS)} on {', '.join(PLATFORMS)}")


if __name__ == "__main__":
    main()
