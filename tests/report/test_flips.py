"""Images that changed between right and wrong."""

from __future__ import annotations

from optkit.report.bench_schema import FlippedImage, Flips
from optkit.report.collect import collect
from optkit.report.flips import alt, changed, class_table, sentence, strips
from optkit.report.render import to_html

from .bench_folder import EVIL, full_bench
from .run_folder import RunFolder
from .test_render import Page


def test_what_a_change_is() -> None:
    answers = {"lost": ("cat", "dog"), "won": ("dog", "cat"), "changed": ("1", "2")}
    kinds = {
        kind: FlippedImage(label="cat", before=before, after=after).kind
        for kind, (before, after) in answers.items()
    }
    assert kinds == {kind: kind for kind in answers}


def test_classes_with_the_most_losses_come_first() -> None:
    by_class = [
        {"class": "a", "n": 9, "lost": 0, "won": 4},
        {"class": "b", "n": 9, "lost": 3, "won": 1},
        {"class": "c", "n": 9, "lost": 0, "won": 0},
    ]
    table = class_table(Flips.model_validate({"name": "m", "by_class": by_class}))
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["b", "9", "3", "1", "−2"],
        ["a", "9", "0", "4", "+4"],
    ]
    assert [row[-1].tone for row in table.rows] == ["loss", "gain"]


def test_long_lists_are_folded(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    int8 = next(found for _, found in changed(collect(empty_run.path).benches) if found.name == "int8")
    lost, won = strips(int8)
    assert (len(lost.shown), len(lost.folded), len(won.shown), len(won.folded)) == (8, 3, 3, 0)
    assert sentence(int8) == "4 lost and 3 won of 360 images against fp32 (McNemar: p = 0.7)"


def test_pictures_are_inlined_and_described(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    page = Page(to_html(collect(empty_run.path)))
    images = page.all("img")
    assert len(images) == 4 + 14 + 4
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in images)
    expected = f"val/<b>cat</b>/IMG_0000.jpg: true cat, before cat 52.0 %, after {EVIL} 97.0 %"
    assert images[0]["alt"] == expected
    assert alt(FlippedImage(file="x.jpg", before="a", after=3)) == "x.jpg: before a, after 3"
    text = " ".join(page.text.split())
    assert f"cat 52.0 % → then {EVIL} 97.0 % true: cat IMG_0000.jpg" in text


def test_a_picture_outside_the_artifact_is_not_read(empty_run: RunFolder) -> None:
    full_bench(empty_run)
    (empty_run.path / "secret.jpg").write_bytes(b"\xff\xd8\xffsecret")

    def point(manifest: dict) -> None:  # type: ignore[type-arg]
        manifest["details"]["flips"][0]["images"][0]["image"] = "../secret.jpg"

    empty_run.edit("bench", point)
    page = Page(to_html(collect(empty_run.path)))
    assert len(page.all("img")) == 21
    assert "no picture" in page.text


def test_models_that_changed_nothing_have_no_section(empty_run: RunFolder) -> None:
    full_bench(empty_run, flips=[{"name": "int8", "n": 360}])
    assert changed(collect(empty_run.path).benches) == []
    assert "flips" not in [
        section["aria-labelledby"] for section in Page(to_html(collect(empty_run.path))).all("section")
    ]
