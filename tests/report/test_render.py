"""The written report: self-contained, safe with text from outside, complete."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from optkit.core.types import Format
from optkit.report.collect import collect
from optkit.report.render import render, to_html, to_markdown
from optkit.report.schema import Report

from .run_folder import CLASSES, NO_GPU, RunFolder, bench_row, latency


class Page(HTMLParser):
    """What a browser would see: elements, attributes, text outside scripts, script contents."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._raw: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else None
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._raw = None

    def handle_data(self, data: str) -> None:
        if self._raw == "script":
            attributes, content = self.scripts[-1]
            self.scripts[-1] = (attributes, content + data)
        elif self._raw is None:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def html(run: RunFolder) -> str:
    return to_html(collect(run.path))


def test_the_files_are_written(run: RunFolder, tmp_path: Path) -> None:
    report = collect(run.path)
    paths = render(report, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "report.json", "report.md", "report.csv"}
    assert Report.model_validate_json(paths["json"].read_bytes()) == report
    value = json.loads(paths["json"].read_text())
    engine = next(row for row in value["rows"] if row["name"] == "engine")
    assert engine["latency_ms"] is None, "as bench writes it: not measured is null"
    assert [row["name"] for row in value["rows"]] == [
        "teacher",
        "student",
        "pruned",
        "onnx",
        "int8",
        "engine",
    ]


def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "data", "action", "poster", "background"} & attributes.keys(), tag
        assert tag not in ("link", "iframe", "object", "embed", "img", "base"), tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_policy_forbids_the_network_and_names_the_scripts(html: str) -> None:
    page = Page(html)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv"))
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    executed = [content for attributes, content in page.scripts if "type" not in attributes]
    assert len(executed) == 2
    for content in executed:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules["script-src"]


def test_text_from_outside_stays_text(run: RunFolder) -> None:
    key = run.add("evil", "export", Format.ONNX, size=1, warnings=("</script><script>alert(2)</script>",))
    name = "</script><script>alert(3)</script>"
    row = bench_row(
        name, key, latency_ms=latency(2.0), top1=0.9, not_measured={"macs": "<img src=x onerror=y>"}
    )
    run.add("bench2", "bench", Format.RESULT, inputs={"models": [key]}, details={"rows": [row]})
    page = Page(to_html(collect(run.path)))
    assert len(page.scripts) == 3  # figures, plotly.js and our own
    assert not page.all("img")
    for expected in (CLASSES[2], "</script><script>alert(2)</script>", name, "<b>lite2</b>", "# <recipe>"):
        assert expected in page.text
    figures = page.scripts[0][1]
    assert "<" not in figures
    assert "alert(3)" in str(json.loads(figures))


def test_results_table(html: str) -> None:
    page = Page(html)
    rows = [attributes for attributes in page.all("tr") if "data-name" in attributes]
    assert [row["data-name"] for row in rows] == ["teacher", "student", "pruned", "onnx", "int8", "engine"]
    assert [row["data-p50"] for row in rows] == ["41.3", "22.8", "15.1", "3.42", "1.63", ""]
    assert [row["data-name"] for row in rows if row.get("class") == "best"] == ["int8"]
    table = html[html.index("<caption><span>Every model in every runtime") :]
    table = table[: table.index("</table>")]
    cells = [re.findall(r"<t[hd][^>]*>", row) for row in re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL)]
    widths = {sum(int((re.findall(r'colspan="(\d+)"', cell) or ["1"])[0]) for cell in row) for row in cells}
    keys = set(re.findall(r'data-key="(\w+)"', table))
    assert widths == {len(keys)} == {14}
    data = [name.removeprefix("data-") for name in rows[0] if name.startswith("data-")]
    sortable = {re.sub(r"-(\w)", lambda part: part[1].upper(), name) for name in data}
    assert keys == sortable  # every heading sorts by something the rows have


def test_reasons_differences_and_marks_are_visible(html: str) -> None:
    page = Page(html)
    words = " ".join(page.text.split())
    assert words.count(f"not measured{NO_GPU}") >= 3
    assert "an engine does not say" in words
    assert "no difference that 360 images can show" in words
    assert "onnxruntime against pytorch" in words
    assert "indicative" in words
    assert "trained from scratch" in words
    assert "tensorrt_rtx" in words  # engine facts
    assert "calibrator mse" in words.replace("calibratormse", "calibrator mse")  # quantization facts


def test_the_lineage_is_told_in_words(empty_run: RunFolder) -> None:
    """A drawing with the role of an image hides the text that is in it."""
    first = empty_run.add('a"<b>', "export", Format.ONNX, size=1)
    empty_run.add("c", "quantize", Format.ONNX, size=1, inputs={"model": [first]})
    (drawing,) = [
        one for one in Page(to_html(collect(empty_run.path))).all("svg") if one["class"] == "lineage"
    ]
    assert drawing["aria-label"] == 'Lineage: a"<b>; c from a"<b>'


def test_page_is_accessible(html: str) -> None:
    page = Page(html)
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("caption")
    assert all(header.get("scope") for header in page.all("th"))
    assert all(attributes.get("aria-label") for attributes in page.all("svg"))
    assert all(part.get("aria-label") for part in page.all("div") if part.get("role") == "img")
    regions = [part for part in page.all("div") if "scroll" in (part.get("class") or "")]
    assert regions
    assert all(part.get("tabindex") == "0" for part in regions)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["aria-labelledby"] for attributes in page.all("section")} <= set(ids)


def _luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_contrast_in_both_themes(html: str) -> None:
    style = html[html.index("<style>") : html.index("</style>")]
    light = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", style[: style.index("@media")]))
    dark = {**light, **dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", style[style.index("@media") :]))}
    assert light != dark
    pairs = [
        (text, ground)
        for text in ("text", "muted", "accent", "gain", "loss")
        for ground in ("page", "card", "best")
    ]
    for theme in (light, dark):
        for text, ground in (*pairs, ("warn-text", "warn")):
            bright, dim = sorted((_luminance(theme[text]), _luminance(theme[ground])), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, ground)


def test_a_run_without_figures_has_no_plotly(empty_run: RunFolder) -> None:
    empty_run.add("onnx", "export", Format.ONNX, size=10)
    html = to_html(collect(empty_run.path))
    assert len(html) < 100_000
    assert "Nothing was benched" in html
    assert "not benched" in Page(html).text


def test_markdown_is_a_well_formed_table(run: RunFolder) -> None:
    key = run.add("late", "export", Format.ONNX, size=1)
    row = bench_row("a|b\n<i>[x](http://evil)@all", key)
    run.add("bench2", "bench", Format.RESULT, inputs={"models": [key]}, details={"rows": [row]})
    markdown = to_markdown(collect(run.path))
    folded = markdown[markdown.index("<summary>Results") : markdown.index("Δ and speed")]
    table = [line for line in folded.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 7
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {9}
    assert r"**a\|b \<i\>\[x\](http://evil)&#64;all**" in markdown
    assert "not measured: " + NO_GPU in markdown
    assert "~5.47" in markdown
    assert (
        r"- teacher: trained from scratch: no pretrained weights of \<b\>lite2\</b\> could be had" in markdown
    )
    assert markdown.splitlines()[2].startswith("int8 (INT8 ONNX): 2.10× the speed of onnx")


def test_report_imports_nothing_heavy(run: RunFolder, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from optkit.report.collect import collect;"
        "from optkit.report.render import render; render(collect(Path(sys.argv[1])), Path(sys.argv[2]));"
        "print([name for name in ('torch', 'numpy', 'onnx', 'timm') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(run.path), str(tmp_path / "out")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
