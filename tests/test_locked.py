"""What `make setup` installs is locked by hash, and what a release lists of it is complete."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scripts.lock import LOCK, WHEEL, environments, parse, render, short_marker, torch_version
from scripts.sbom import bill

PYPROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Each lock and the extras that it is for.
LOCKS = {LOCK: list(EXTRAS), WHEEL: ["export", "serve"]}


def torch_free(requirements: list[str]) -> list[Requirement]:
    """PyTorch is installed by its own rule."""
    return [each for each in map(Requirement, requirements) if each.name != "torch"]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_every_requirement_inside_its_range(path: Path) -> None:
    pins = {pin.name: pin for pin in parse(path.read_text(encoding="utf-8"))}
    listed = [*PROJECT["dependencies"], *(line for extra in LOCKS[path] for line in EXTRAS[extra])]
    for requirement in torch_free(listed):
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin.version), requirement
        for environment in environments():
            wanted = not requirement.marker or requirement.marker.evaluate(environment)
            assert not wanted or not pin.marker or Marker(pin.marker).evaluate(environment)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_package_of_a_lock_has_hashes_and_nothing_names_a_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for pin in parse(text):
        assert pin.hashes, pin.name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in pin.hashes), pin.name
    assert "://" not in text
    assert not re.search(r"^\s*--(index|extra|find|trusted)", text, re.M)


def test_the_lock_builds_groundup_without_isolation() -> None:
    """The build backend, and what it needs for an editable installation."""
    pins = {pin.name: pin for pin in parse(LOCK.read_text(encoding="utf-8"))}
    for requirement in map(Requirement, PYPROJECT["build-system"]["requires"]):
        assert requirement.specifier.contains(pins[requirement.name].version)
    assert "editables" in pins


def test_the_same_pytorch_is_installed_everywhere() -> None:
    for path in (".ci/run", ".github/workflows/ci.yml", str(LOCK), str(WHEEL)):
        named = set(re.findall(r"torch==([0-9.]*[0-9])", Path(path).read_text(encoding="utf-8")))
        assert named == {torch_version()}, path


def test_both_locks_pin_the_same_versions() -> None:
    everything = {pin.name: pin for pin in parse(LOCK.read_text(encoding="utf-8"))}
    for pin in parse(WHEEL.read_text(encoding="utf-8")):
        assert (everything[pin.name].version, everything[pin.name].hashes) == (
            pin.version,
            pin.hashes,
        )


def test_a_lock_reads_back_as_it_was_written() -> None:
    text = LOCK.read_text(encoding="utf-8")
    assert render(parse(text)) == text
    by_uv = (
        "a==1 ; sys_platform == 'darwin' \\\n    --hash=sha256:0 \\\n    --hash=sha256:1\n"
        "    # via\n    #   -c all.txt\n    #   b\n    #   c\nd==2\n    # via a\n"
    )
    first, second = parse(by_uv)
    assert first.requirement == "a==1 ; sys_platform == 'darwin'"
    assert (first.hashes, first.via) == (("sha256:0", "sha256:1"), ("b", "c"))
    assert (second.requirement, second.via) == ("d==2", ("a",))


def test_a_marker_is_shortened_only_where_it_means_the_same() -> None:
    assert short_marker("python_full_version < '3.15' and sys_platform != 'win32'") == ""
    assert short_marker("sys_platform == 'darwin' and platform_machine == 'arm64'") == (
        "sys_platform == 'darwin'"
    )
    assert short_marker("python_version < '3.12'") == "python_version < '3.12'"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return bill("1.2.3", "2026-01-02T03:04:05+00:00")


def test_the_bill_of_materials_lists_every_pin(document: dict[str, Any]) -> None:
    """Also the fields that CycloneDX 1.6 requires."""
    assert (document["bomFormat"], document["specVersion"], document["version"]) == (
        "CycloneDX",
        "1.6",
        1,
    )
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["serialNumber"]
    )
    root = document["metadata"]["component"]
    assert (root["type"], root["purl"]) == ("application", "pkg:pypi/groundup@1.2.3")
    components = {each["name"]: each for each in document["components"]}
    assert len(components) == len(document["components"])
    pins = {pin.name: pin for pin in parse(LOCK.read_text(encoding="utf-8"))}
    assert components.keys() == pins.keys() | {"torch"}
    for name, pin in pins.items():
        entry = components[name]
        assert (entry["type"], entry["version"]) == ("library", pin.version)
        assert entry["purl"] == entry["bom-ref"] == f"pkg:pypi/{name}@{pin.version}"
        assert {f"sha256:{each['content']}" for each in entry["hashes"]} == set(pin.hashes)
        assert {each["alg"] for each in entry["hashes"]} == {"SHA-256"}


def test_the_bill_of_materials_says_what_the_wheel_needs(document: dict[str, Any]) -> None:
    scopes = {each["name"]: each["scope"] for each in document["components"]}
    assert (scopes["torch"], scopes["numpy"], scopes["uvicorn"]) == ("required",) * 3
    assert (scopes["pytest"], scopes["ray"]) == ("excluded",) * 2
    numpy = next(each for each in document["components"] if each["name"] == "numpy")
    assert all("expression" in each or "name" in each["license"] for each in numpy["licenses"])


def test_the_bill_of_materials_says_who_needs_whom(document: dict[str, Any]) -> None:
    """Every reference is a component, and all are reached from groundup."""
    needs = {each["ref"]: each["dependsOn"] for each in document["dependencies"]}
    assert needs.keys() == {document["metadata"]["component"]["bom-ref"]} | {
        each["bom-ref"] for each in document["components"]
    }
    reached, waiting = set(), [document["metadata"]["component"]["bom-ref"]]
    while waiting:
        if (reference := waiting.pop()) not in reached:
            reached.add(reference)
            waiting.extend(needs[reference])
    assert reached == needs.keys()


def test_the_same_locks_give_the_same_bill(document: dict[str, Any]) -> None:
    assert bill("1.2.3", "2026-01-02T03:04:05+00:00") == document
    assert "timestamp" not in bill("1.2.3")["metadata"]
    assert bill("1.2.4")["serialNumber"] != document["serialNumber"]
