"use strict";
const root = document.documentElement;
const figures = JSON.parse(document.getElementById("figures").textContent);

/* Figures take the colours of the page, so that they follow dark, light and print. */
function themed(layout) {
  const css = name => getComputedStyle(root).getPropertyValue(name).trim();
  const axis = {gridcolor: css("--line"), linecolor: css("--line"), zerolinecolor: css("--line"),
                tickcolor: css("--line"), automargin: true};
  const result = {...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: {family: css("--font"), size: 13, color: css("--text")},
    hoverlabel: {bgcolor: css("--card"), bordercolor: css("--line"), font: {color: css("--text")}}};
  for (const name of Object.keys(layout).filter(name => /^[xy]axis/.test(name))) {
    const title = {...layout[name].title, font: {size: 13}};
    result[name] = {...axis, ...layout[name], title: name[0] === "y" ? {...title, standoff: 10} : title};
  }
  return result;
}

const PAPER_WIDTH = {whole: 960, half: 450};  // A4 landscape within its margins, in pixels

function draw() {
  const narrow = window.innerWidth < 640, printing = root.classList.contains("print");
  for (const [id, figure] of Object.entries(figures)) {
    const layout = structuredClone(figure.layout);
    layout.dragmode = narrow ? false : "zoom";  // a finger scrolls the page, not the plot
    const card = document.getElementById(id).closest(".grid > *");
    const half = card && getComputedStyle(card).gridColumnEnd !== "-1";  // else it spans all columns
    if (printing) layout.width = half ? PAPER_WIDTH.half : PAPER_WIDTH.whole;
    Plotly.react(id, figure.data, themed(layout), {responsive: true, displaylogo: false, displayModeBar: false});
  }
}

function sortBy(button) {
  const header = button.closest("th"), table = button.closest("table"), key = button.dataset.key;
  const up = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = row => row.dataset[key] ?? "";
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === "" || right === "") return (left === "") - (right === "");  // empty ones last, either way
    const order = isNaN(left) || isNaN(right) ? left.localeCompare(right) : left - right;
    return up ? order : -order;
  });
  table.tBodies[0].append(...rows);
}

for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => sortBy(button));

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

/* Paper is white, and of a width that scripts cannot ask for. */
const unfolded = [];  // for print alone: what the reader had opened stays open
function unfold() {  // nobody can unfold on paper why a cell is empty
  unfolded.push(...document.querySelectorAll("details.reason:not([open])"));
  for (const reason of unfolded) reason.open = true;
}
function fold() {
  for (const reason of unfolded.splice(0)) reason.open = false;
}
addEventListener("beforeprint", () => { root.classList.add("print"); unfold(); draw(); });
addEventListener("afterprint", () => { root.classList.remove("print"); fold(); draw(); });
