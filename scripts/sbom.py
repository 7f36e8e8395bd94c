"""The bill of materials of a release: what the locks pin, as CycloneDX 1.6 in JSON.

A component that the wheel needs (with the extras `export` and `serve`) has the scope `required`,
one that only work on groundup needs `excluded`. Its SHA-256 hashes are those of all files that the
lock accepts. Licenses come from the installed packages; appnope, for macOS only, has none on Linux.
"""

from __future__ import annotations

import uuid
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

from scripts.lock import LOCK, WHEEL, Pin, parse, torch_version

ROOT = "groundup"
# How a lock names pyproject.toml, with or without an extra.
FROM_PROJECT = "groundup (pyproject.toml)"


def purl(name: str, version: str) -> str:
    """The package URL: what the package is called everywhere."""
    return f"pkg:pypi/{name}@{version}"


def licenses(name: str) -> list[dict[str, Any]]:
    """What the installed package says of its license; nothing if it is not installed."""
    try:
        fields = metadata(name)
    except PackageNotFoundError:
        return []
    if expression := fields.get("License-Expression"):
        return [{"expression": expression}]
    prefix = "License :: OSI Approved :: "
    classifiers = fields.get_all("Classifier") or []
    names = [text.removeprefix(prefix) for text in classifiers if text.startswith(prefix)]
    # Old packages put the whole text into this field.
    if not names and 0 < len(short := fields.get("License") or "") <= 80 and "\n" not in short:
        names = [short]
    return [{"license": {"name": each}} for each in names]


def component(name: str, version: str, **more: Any) -> dict[str, Any]:
    """One entry; its reference is its package URL."""
    url = purl(name, version)
    entry = {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}
    known = licenses(name)
    return {**entry, **more, **({"licenses": known} if known else {})}


def hashes(pin: Pin) -> list[dict[str, str]]:
    """The hashes of a pin in CycloneDX's form."""
    digests = [digest.removeprefix("sha256:") for digest in pin.hashes]
    return [{"alg": "SHA-256", "content": digest} for digest in digests]


def dependencies(pins: list[Pin], urls: dict[str, str]) -> list[dict[str, Any]]:
    """Who needs whom. The locks say it from the other side."""
    needs: dict[str, set[str]] = {url: set() for url in urls.values()}
    needs[urls[ROOT]].add(urls["torch"])
    for pin in pins:
        for parent in pin.via:
            needs[urls[ROOT if parent == FROM_PROJECT else parent]].add(urls[pin.name])
    return [{"ref": url, "dependsOn": sorted(children)} for url, children in needs.items()]


def bill(version: str, timestamp: str = "") -> dict[str, Any]:
    """Return the document for a version of groundup; the same locks give the same document.

    `timestamp` (ISO 8601) is left out if it is empty.
    """
    pins = parse(LOCK.read_text(encoding="utf-8"))
    required = {pin.name for pin in parse(WHEEL.read_text(encoding="utf-8"))}
    torch = component(
        "torch",
        torch_version(),
        scope="required",
        description="Installed first, by its own rule: the build (CPU, CUDA) differs by machine",
    )
    components = [torch]
    for pin in pins:
        scope = "required" if pin.name in required else "excluded"
        components.append(component(pin.name, pin.version, scope=scope, hashes=hashes(pin)))
    components.sort(key=lambda entry: entry["name"])
    root = {**component(ROOT, version), "type": "application"}
    urls = {entry["name"]: entry["bom-ref"] for entry in [root, *components]}
    content = f"{root['purl']}\n{LOCK.read_text(encoding='utf-8')}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {**({"timestamp": timestamp} if timestamp else {}), "component": root},
        "components": components,
        "dependencies": dependencies(pins, urls),
    }
