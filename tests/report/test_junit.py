from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from optkit.core.types import Format, Manifest
from optkit.report.junit import junit


def criterion(verdict: str, **fields: Any) -> dict[str, Any]:
    return {"name": "max_drop", "verdict": verdict, "text": f"a text that says {verdict}", **fields}


def suite_of(*criteria: dict[str, Any], **details: Any) -> ElementTree.Element:
    fields = {"candidate": "int8", "baseline": None, "verdict": "fail", "confidence": 0.95}
    manifest = Manifest(
        stage="gate",
        key="k",
        format=Format.RESULT,
        details={**fields, **details, "criteria": list(criteria)},
        created="2026-01-02T03:04:05+01:00",
        seconds=1.5,
    )
    root = ElementTree.fromstring(junit([manifest]).encode())
    assert root.tag == "testsuites"
    return root[0]


def test_every_criterion_is_a_test_case() -> None:
    suite = suite_of(criterion("pass"), criterion("fail"), criterion("cannot tell"))
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "time", "timestamp", "id")}
    assert counts == {
        "tests": "3", "failures": "1", "errors": "1", "time": "1.500", "timestamp": "2026-01-02T02:04:05", "id": "0",
    }  # fmt: skip
    cases = suite.findall("testcase")
    assert [[child.tag for child in case] for case in cases] == [[], ["failure"], ["error"]]
    assert cases[2][0].get("type") == "cannot tell"
    assert cases[1][0].get("message") == cases[1][0].text == "a text that says fail"


def test_elements_have_the_order_and_attributes_of_the_schema() -> None:
    suite = suite_of(criterion("fail"))
    assert [child.tag for child in suite] == ["properties", "testcase", "system-out", "system-err"]
    required = {"id", "package", "name", "timestamp", "hostname", "tests", "failures", "errors", "time"}
    assert set(suite.keys()) == required
    assert set(suite.find("testcase").keys()) == {"name", "classname", "time"}
    values = {one.get("name"): one.get("value") for one in suite.find("properties")}
    assert values == {"candidate": "int8", "confidence": "0.95", "verdict": "fail"}


def test_names_from_outside_are_escaped() -> None:
    evil = "<b>\"&'\x00\x1b\ud800"
    suite = suite_of(criterion("fail", text=evil), candidate=evil)
    case = suite.find("testcase")
    assert case.get("classname") == "optkit.gate.<b>\"&'" + 3 * "\ufffd"
    assert case[0].text == "<b>\"&'" + 3 * "\ufffd"


def test_several_gates_are_several_suites() -> None:
    manifest = Manifest(
        stage="gate",
        key="k",
        format=Format.RESULT,
        details={"candidate": "a", "criteria": [criterion("pass")]},
    )
    root = ElementTree.fromstring(junit([manifest, manifest]).encode())
    assert [suite.get("id") for suite in root] == ["0", "1"]
