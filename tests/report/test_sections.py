"""The sections of training, evaluation, explanation and data in the written report."""

from __future__ import annotations

import json
import re

import pytest

from optkit.core.types import Format
from optkit.report.collect import collect
from optkit.report.render import to_html, to_json, to_markdown
from optkit.report.schema import Report

from .run_folder import CLASSES, RunFolder, evaluation
from .test_render import Page

SECTIONS = ("evaluation", "explanation", "training", "data", "scaling")


@pytest.fixture
def page(tutorial: RunFolder) -> Page:
    return Page(to_html(collect(tutorial.path)))


def _sections(page: Page) -> list[str | None]:
    return [section["aria-labelledby"] for section in page.all("section")]


def test_sections_with_something_to_show(page: Page) -> None:
    assert [name for name in _sections(page) if name in SECTIONS] == list(SECTIONS[:4])


def test_sections_without_anything_to_show_are_absent(empty_run: RunFolder) -> None:
    empty_run.add("onnx", "export", Format.ONNX, size=1)
    bare = Page(to_html(collect(empty_run.path)))
    assert not set(SECTIONS) & set(_sections(bare))


def test_thumbnails_are_inlined_and_described(page: Page) -> None:
    images = page.all("img")
    assert len(images) == 12
    assert [image["src"][:22] for image in images if image["src"]] == 6 * ["data:image/jpeg;base64"] + 6 * [
        "data:image/png;base64,"
    ]
    assert images[0]["alt"] == "val/cat/IMG_0000.jpg: true cat, predicted dog"
    text = " ".join(page.text.split())
    assert "dog 99.0 % true: cat IMG_0000.jpg" in text
    assert "dog 99.0 % other model: cat 62.5 % · overlap 50.0 % true: cat IMG_0000.jpg" in text


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), tag
        assert not [name for name in attributes if name.startswith("on")], tag


def test_names_from_outside_stay_text(page: Page) -> None:
    assert len(page.scripts) == 3  # figures, plotly.js and our own
    assert page.text.count(CLASSES[2]) > 5


def test_a_thumbnail_that_is_gone_leaves_its_caption(tutorial: RunFolder) -> None:
    (tutorial.path / "evaluate" / "mistakes" / "00.jpg").unlink()
    page = Page(to_html(collect(tutorial.path)))
    assert len(page.all("img")) == 11
    assert "no picture" in page.text
    assert "dog 99.0 % true: cat" in " ".join(page.text.split())


def test_the_page_is_accessible(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [
        attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes
    ]
    assert set(named) <= set(ids)
    assert all(header.get("scope") for header in page.all("th"))
    assert all(image.get("alt") for image in page.all("img"))


def test_tables_sort_by_what_their_rows_have(tutorial: RunFolder) -> None:
    html = to_html(collect(tutorial.path))
    tables = [table for table in re.findall(r"<table.*?</table>", html, re.DOTALL) if "data-key" in table]
    assert len(tables) == 2
    for table in tables:
        keys = {
            re.sub(r"[A-Z]", lambda c: "-" + c[0].lower(), k) for k in re.findall(r'data-key="(\w+)"', table)
        }
        row = table[table.index("<tbody>") :]
        assert keys <= set(re.findall(r"data-([\w-]+)=", row))
        headings = len(re.findall(r"<th scope=\"col\"", table))
        cells = [len(re.findall(r"<t[hd][ >]", line)) for line in re.findall(r"<tr.*?</tr>", row, re.DOTALL)]
        assert set(cells) == {headings}


def test_a_thousand_classes_stay_readable(empty_run: RunFolder) -> None:
    metrics, details = evaluation([f"class {index}" for index in range(1000)], images=6)
    key = empty_run.add("model", "export", Format.ONNX, size=1)
    empty_run.add(
        "evaluate", "evaluate", Format.RESULT, inputs={"model": [key]}, metrics=metrics, details=details
    )
    html = to_html(collect(empty_run.path))
    text = " ".join(Page(html).text.split())
    assert "984 more classes" in text
    assert "Most frequent confusions" in text
    assert len(html) < 1_500_000


def test_data_card_shows_leaks_and_corrupt_files(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "1 exact and 1 near copies of training images in validation" in text
    for words in (
        "cat/9.jpg",
        "cat/broken.jpg",
        "0 bytes",
        "width 41 – 1050 median 500",
        "JPEG 198, PNG 2",
        "1350 images checked",
    ):
        assert words in text


def test_manifests_of_another_version_make_a_page(empty_run: RunFolder) -> None:
    """They lack facts that this version writes."""
    images = {"formats": {"JPEG": 3}, "width": {"max": 9}, "height": {"min": 1, "max": 9}}
    empty_run.add("ft", "finetune", Format.TORCH, size=1, details={"data": {"images": images}})
    empty_run.add("scale", "scale", Format.RESULT, details={"base": {"phi": 1}, "trials": [{"phi": 1}]})
    text = " ".join(Page(to_html(collect(empty_run.path))).text.split())
    assert "JPEG 3" in text
    assert "height 1 – 9" in text
    assert "phi 1" in text


def test_scaling_is_a_table(empty_run: RunFolder) -> None:
    trials = [{"arch": f"net@{phi}", "phi": phi, "macs": 386_000_000 * 2**phi} for phi in range(3)]
    details = {"base": trials[0], "chosen": trials[1], "trials": trials, "candidates": []}
    empty_run.add("scale", "scale", Format.RESULT, details=details)
    page = Page(to_html(collect(empty_run.path)))
    assert "scaling" in _sections(page)
    text = " ".join(page.text.split())
    assert "net@1 · phi 1 · macs 772 M" in text
    assert "Tried within the budget" in text
    assert "Candidates" not in text
    assert "1.54 G" in text


def test_markdown_and_json_hold_the_headline_figures(tutorial: RunFolder) -> None:
    report = collect(tutorial.path)
    table = [line for line in to_markdown(report).splitlines() if line.startswith("|")]
    line = next(line for line in table if "by evaluate" in line)
    assert "99.6 % (98.4 – 100.0 %)" in line
    assert "0.310 (0.298 – 0.321)" in line
    assert len(re.findall(r"(?<!\\)\|", line)) == 9
    assert Report.model_validate_json(to_json(report)) == report
    (found,) = json.loads(to_json(report))["evaluations"]
    assert found["figures"][0]["value"] == report.evaluations[0].figures[0].value
    assert found["figures"][0]["interval"] == [pytest.approx(0.984), 1.0]
