"""The page in a browser: nothing loaded, everything drawn, sortable by keyboard, readable in every light and width."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from optkit.core.types import Format, Precision
from optkit.report.collect import collect
from optkit.report.compare_runs import compare_runs
from optkit.report.render import render
from optkit.report.render_runs import render_runs

from .bench_folder import EVIL, estimates, full_bench, gate
from .run_folder import CLASSES, RunFolder, evaluation, history, ladder, photo

CHROMIUM = shutil.which("chromium")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")

# For every element with a text of its own: that text, its colour, and the first ground below that is not clear.
PAIRS = """() => {
  const clear = colour => /^rgba\\(.*, 0\\)$|^transparent$/.test(colour);
  const found = [];
  for (const element of document.querySelectorAll("main *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.closest("svg") || !element.checkVisibility()) continue;
    let ground = element;
    while (ground.parentElement && clear(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
    const style = getComputedStyle(element);
    found.push([element.textContent.trim().slice(0, 40), style.color, getComputedStyle(ground).backgroundColor]);
  }
  return found;
}"""
# The size of every figure, and its lines and marks that have a shape.
DRAWN = """() => Object.keys(JSON.parse(document.getElementById("figures").textContent)).map(id => {
  const svg = document.querySelector(`[id="${id}"] svg.main-svg`);
  const box = svg ? svg.getBoundingClientRect() : {width: 0, height: 0};
  const paths = svg ? [...svg.querySelectorAll(".trace path")] : [];
  return [id, box.width, box.height, paths.filter(path => (path.getAttribute("d") || "").length > 3).length];
})"""
NAMES = "table => [...table.tBodies[0].rows].map(row => row.cells[0].firstChild.textContent.trim())"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run that has something for every section."""
    folder = tmp_path_factory.mktemp("browser")
    run = RunFolder(folder)
    keys = full_bench(run)
    gate(run)
    estimates(run, keys["int8"])
    model = run.add("model", "finetune", Format.TORCH, size=9, history=history(6, 0.97))
    source, int8 = {"model": [model]}, {"quantization": ladder()}
    run.add("climbed", "quantize", Format.ONNX, size=9, precision=Precision.INT8, inputs=source, details=int8)
    metrics, details = evaluation(CLASSES, images=50, mistakes=2)
    pictures = {f"mistakes/{index:02d}.jpg": photo(hue=90 * index) for index in range(2)}
    run.add(
        "evaluate",
        "evaluate",
        Format.RESULT,
        inputs=source,
        metrics=metrics,
        details=details,
        files=pictures,
    )
    return render(collect(run.path), folder)["html"]


@pytest.fixture(scope="module")
def desk(browser: Any, file: Path) -> Iterator[SimpleNamespace]:
    """The page at a desk's width, and what it asked for and said."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    seen = SimpleNamespace(page=page, requests=[], messages=[])
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.messages.append((message.type, message.text)))
    page.on("pageerror", lambda error: seen.messages.append(("error", str(error))))
    page.on("dialog", lambda dialog: (seen.messages.append(("dialog", dialog.message)), dialog.dismiss()))
    page.goto(file.as_uri())
    yield seen
    page.close()


def test_nothing_is_asked_for_and_nothing_goes_wrong(desk: SimpleNamespace, file: Path) -> None:
    assert desk.messages == []
    assert [url for url in desk.requests if not url.startswith("data:")] == [file.as_uri()]


def test_every_plot_is_drawn(desk: SimpleNamespace) -> None:
    drawn = desk.page.evaluate(DRAWN)
    kinds = {re.sub(r"-[\d-]+$", "", id) for id, *_ in drawn}
    assert kinds == {"pareto", "latencies", "rounds", "trace", "roofline", "training", "ladder"}
    for id, width, height, shapes in drawn:
        assert width > 300, id
        assert height > 150, id
        assert shapes > 0, id


def test_names_from_outside_are_shown_and_not_run(desk: SimpleNamespace) -> None:
    text = desk.page.inner_text("main")
    assert text.count(EVIL) > 5
    assert desk.page.evaluate("document.scripts.length") == 3
    assert not [message for kind, message in desk.messages if kind == "dialog"]


def test_hovering_tells_of_a_point(desk: SimpleNamespace) -> None:
    plot = desk.page.locator("#pareto-1")
    plot.scroll_into_view_if_needed()
    box = plot.locator(".scatterlayer .trace .points path").last.bounding_box()
    desk.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    plot.locator(".hoverlayer .hovertext").wait_for(timeout=3000)
    said = plot.locator(".hoverlayer").text_content()
    assert "top-1 96.7 %" in said
    assert "cannot tell" in said


def test_tables_sort_by_click_and_by_key(desk: SimpleNamespace) -> None:
    table = desk.page.locator("[aria-labelledby=results] table").first
    size = table.get_by_role("button", name="Size")
    size.click()
    assert table.evaluate(NAMES) == ["model", "climbed", "int8", "int8-ov", "pruned", "fp32"]
    assert table.locator("th[aria-sort=ascending]").inner_text().startswith("Size")
    size.focus()
    desk.page.keyboard.press("Enter")
    assert table.evaluate(NAMES)[0] == "fp32"
    assert table.locator("th[aria-sort=descending]").count() == 1
    desk.page.keyboard.press("Shift+Tab")
    assert desk.page.evaluate("document.activeElement.textContent") == "Params"


def test_the_baseline_sorts_among_the_differences(desk: SimpleNamespace) -> None:
    table = desk.page.locator("[aria-labelledby=deltas] table").first
    table.get_by_role("button", name="Latency").click()
    assert table.evaluate(NAMES) == ["fp32", "int8-ov", "pruned", "int8"]
    table.get_by_role("button", name="Top-1").click()
    assert table.evaluate(NAMES) == ["pruned", "int8", "fp32", "int8-ov"]


def test_refused_percentiles_sort_last(desk: SimpleNamespace) -> None:
    table = desk.page.locator("[aria-labelledby=latency] table").first
    table.get_by_role("button", name="p50 ms").click()
    assert table.evaluate(NAMES) == ["int8", "pruned", "int8-ov", "fp32"]


def test_a_reason_unfolds(desk: SimpleNamespace) -> None:
    reason = desk.page.locator("details.reason").first
    reason.locator("summary").focus()
    desk.page.keyboard.press("Enter")
    assert "no <probabilities>" in reason.inner_text()


def test_headings_come_in_order(desk: SimpleNamespace) -> None:
    levels = desk.page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def _luminance(colour: str) -> float:
    parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_dark_and_light_differ_and_both_have_contrast(desk: SimpleNamespace) -> None:
    grounds = []
    for scheme in ("dark", "light"):
        desk.page.emulate_media(color_scheme=scheme)
        pairs = desk.page.evaluate(PAIRS)
        assert len(pairs) > 300
        for text, colour, ground in pairs:
            if not ground.startswith("rgb"):
                continue  # the shades of a confusion matrix are mixed by the browser
            bright, dim = sorted((_luminance(colour), _luminance(ground)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (scheme, text, colour, ground)
        grounds.append(desk.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_print_hides_nothing(desk: SimpleNamespace) -> None:
    page = desk.page
    shown = "all => all.filter(one => one.checkVisibility() && one.getBoundingClientRect().height > 0).length"
    wanted = "h1, h2, main > section, .tiles div, svg.main-svg, .strip img, main > section > .scroll > table"
    on_screen = page.eval_on_selector_all(wanted, shown)
    page.set_viewport_size({"width": 1030, "height": 720})  # A4 landscape within its margins
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.eval_on_selector_all(wanted, shown) == on_screen
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(21, 26, 34)"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # no table is cut off
    assert page.locator("details.reason:not([open])").count() == 0
    for ground in (".heat td", ".bar i", ".cost i", ".bars caption i", ".costs caption i"):
        exact = page.locator(ground).first.evaluate("one => getComputedStyle(one).printColorAdjust")
        assert exact == "exact", ground  # else browsers leave the bars out
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    reason = page.locator("details.reason").first
    for was_open in (True, False):  # what the reader had opened stays open
        reason.evaluate("(one, open) => { one.open = open; }", was_open)
        page.evaluate("for (const when of ['beforeprint', 'afterprint']) dispatchEvent(new Event(when))")
        assert reason.evaluate("one => one.open") == was_open
    page.emulate_media(media="screen", color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_a_phone_scrolls_only_downwards(browser: Any, file: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    drawn = page.evaluate(DRAWN)
    assert drawn
    assert all(200 < width <= 390 and shapes for _, width, _, shapes in drawn)
    page.close()


def test_compared_runs_fit_a_phone_too(browser: Any, file: Path, tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()
    later = RunFolder(tmp_path / "later")
    full_bench(later)
    earlier = file.parent / "runs" / "example"
    page = browser.new_page(viewport={"width": 390, "height": 844})
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(render_runs(compare_runs([earlier, later.path]), tmp_path)["html"].as_uri())
    assert messages == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert [shapes > 0 for *_, shapes in page.evaluate(DRAWN)] == [True]
    page.close()


def test_figures_are_small(file: Path) -> None:
    """Of thousands of calls a plot holds a curve."""
    html = file.read_text()
    figures = html[html.index('id="figures">') + 13 :]
    assert len(json.dumps(json.loads(figures[: figures.index("</script>")]))) < 120_000
