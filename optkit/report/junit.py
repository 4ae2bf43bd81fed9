"""The verdict of a gate as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

from optkit.core.types import Manifest

PROPERTIES = ("candidate", "runtime", "baseline", "baseline_runtime", "batch", "confidence", "verdict")
# What XML 1.0 has no way to say, not even escaped.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(gates: Sequence[Manifest]) -> str:
    """A suite for each gate's manifest, a test case for each of its criteria.

    `cannot tell` is an error, as CI systems let skipped tests pass, and so is a crash. Elements and their order are
    those that both Ant's and Jenkins' schema of JUnit take.
    """
    root = ElementTree.Element("testsuites")
    for number, manifest in enumerate(gates):
        _suite(root, number, manifest)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _suite(root: ElementTree.Element, number: int, manifest: Manifest) -> None:
    details = manifest.details
    criteria: list[dict[str, Any]] = details["criteria"]
    kinds = [_kind(criterion) for criterion in criteria]
    attributes = {
        "id": str(number),
        "package": "optkit",
        "name": "optkit gate",
        "timestamp": _timestamp(manifest.created),
        "hostname": "localhost",
        "tests": str(len(criteria)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
        "time": f"{manifest.seconds:.3f}",
    }
    suite = ElementTree.SubElement(root, "testsuite", attributes)
    properties = ElementTree.SubElement(suite, "properties")
    for name in PROPERTIES:
        if details.get(name) is not None:
            ElementTree.SubElement(properties, "property", {"name": name, "value": _text(details[name])})
    for criterion in criteria:
        _case(suite, criterion, _text(details["candidate"]))
    for name in ("system-out", "system-err"):
        ElementTree.SubElement(suite, name)


def _case(suite: ElementTree.Element, criterion: dict[str, Any], candidate: str) -> None:
    attributes = {"classname": f"optkit.gate.{candidate}", "name": _text(criterion["name"]), "time": "0.000"}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    if kind := _kind(criterion):
        text = _text(criterion["text"])
        found = ElementTree.SubElement(case, kind, {"type": _text(criterion["verdict"]), "message": text})
        found.text = text


def _kind(criterion: dict[str, Any]) -> str:
    """The element that says how it ended; none for what passed."""
    if criterion["verdict"] == "pass":
        return ""
    return "failure" if criterion["verdict"] == "fail" and not criterion.get("crashed") else "error"


def _text(value: Any) -> str:
    return NOT_XML.sub("\ufffd", str(value))


def _timestamp(created: str) -> str:
    """UTC without a zone, as the schema wants it."""
    moment = datetime.fromisoformat(created) if created else datetime.fromtimestamp(0, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
