"use strict";
// Heatmaps that can be touched, the slider of the scores, commands to copy, folds that open for printing.
// Without this script the page shows the same as pictures.

const BLANK = 255; // the byte of a cell without a weight
const BLUES = [[247, 251, 255], [222, 235, 247], [198, 219, 239], [158, 202, 225], [107, 174, 214],
               [66, 146, 198], [33, 113, 181], [8, 81, 156], [8, 48, 107]];

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// ------------------------------------------------------------------ colours

function colourOf(share) {
  const place = Math.min(Math.max(share, 0), 1) * (BLUES.length - 1);
  const lower = Math.min(Math.floor(place), BLUES.length - 2);
  return BLUES[lower].map((part, i) => Math.round(part + (place - lower) * (BLUES[lower + 1][i] - part)));
}

function inkOn(colour) { // black or white, whichever has more contrast
  const [red, green, blue] = colour.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) ? "black" : "white";
}

// ------------------------------------------------------------------ heatmaps

function unpacked(map) { // bytes to shares of the largest weight, row by row; NaN for blank
  const codes = Array.from(atob(map.cells), (character) => character.charCodeAt(0));
  const rows = Math.round(codes.length / map.columns.length);
  const share = (code) => (code === BLANK ? NaN : code / (BLANK - 1));
  return Array.from({ length: rows }, (_, row) =>
    codes.slice(row * map.columns.length, (row + 1) * map.columns.length).map(share));
}

function paint(canvas, shares) {
  canvas.height = shares.length;
  canvas.width = shares[0].length;
  const context = canvas.getContext("2d");
  shares.forEach((row, y) => row.forEach((share, x) => {
    context.fillStyle = Number.isNaN(share) ? "white" : `rgb(${colourOf(share)})`;
    context.fillRect(x, y, 1, 1);
  }));
}

// One table of cells. Pointing, focusing or tapping a cell lights its row and says what stands there;
// the arrow keys move from cell to cell.
function heatTable(map, shares, said, say) {
  const table = make("table", { class: "heat", role: "grid", "aria-label": map.title || "weights" });
  const head = make("tr", {}, make("td"));
  map.columns.forEach((column) => head.append(make("th", { scope: "col" }, column)));
  table.append(make("thead", {}, head));
  const body = make("tbody");
  shares.forEach((row, y) => {
    const line = make("tr", {}, make("th", { scope: "row" }, map.rows[y] ?? String(y)));
    row.forEach((share, x) => {
      const cell = make("td", { tabindex: x + y ? "-1" : "0" });
      if (!Number.isNaN(share)) {
        const colour = colourOf(share);
        cell.textContent = (share * map.top).toFixed(2);
        cell.style.backgroundColor = `rgb(${colour})`;
        cell.style.color = inkOn(colour);
      }
      line.append(cell);
    });
    body.append(line);
  });
  table.append(body);

  const placeOf = (target) => {
    const cell = target.closest && target.closest("td");
    return cell && body.contains(cell) ? [cell.parentNode.rowIndex - 1, cell.cellIndex - 1] : null;
  };
  const light = (event) => {
    const place = placeOf(event.target);
    if (!place) return;
    [...table.rows].forEach((row) => row.classList.toggle("lit", row.rowIndex - 1 === place[0]));
    [...head.cells].forEach((cell) => cell.classList.toggle("lit", cell.cellIndex - 1 === place[1]));
    said.textContent = say(place[0], place[1]);
  };
  table.addEventListener("pointermove", light); // not pointerover: that also comes when the page scrolls
  table.addEventListener("click", (event) => { const place = placeOf(event.target); if (place) focusOn(place); });
  table.addEventListener("focusin", light);
  const focusOn = ([y, x]) => {
    const cell = body.rows[y] && body.rows[y].cells[x + 1];
    if (!cell || x < 0) return;
    table.querySelectorAll('td[tabindex="0"]').forEach((other) => other.setAttribute("tabindex", "-1"));
    cell.setAttribute("tabindex", "0");
    cell.focus();
  };
  table.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const place = placeOf(event.target);
    if (!step || !place) return;
    event.preventDefault();
    focusOn([place[0] + step[0], place[1] + step[1]]);
  });
  return table;
}

function touchable(maps, name) {
  const said = make("p", { class: "said", role: "status" });
  const box = make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "weights" });
  const choose = (map) => {
    const shares = unpacked(map);
    said.textContent = "Point at a cell, or move with the arrow keys.";
    box.replaceChildren(heatTable(map, shares, said, (y, x) => {
      const weight = Number.isNaN(shares[y][x]) ? "hidden" : (shares[y][x] * map.top).toFixed(2);
      return `${map.asks} ${map.rows[y] ?? y}, ${map.answers} ${map.columns[x]}: ${weight}`;
    }));
  };
  const panel = make("div", { class: "touch" });
  if (maps.length > 1) {
    const group = make("fieldset", {}, make("legend", {}, "Choose one to see its numbers"));
    maps.forEach((map, number) => {
      const radio = make("input", { type: "radio", name, value: String(number) });
      const canvas = make("canvas", { "aria-hidden": "true" });
      paint(canvas, unpacked(map));
      const label = make("label", {}, radio, canvas, map.title || String(number + 1));
      radio.addEventListener("change", () => {
        group.querySelectorAll("label").forEach((other) => other.classList.toggle("chosen", other === label));
        choose(map);
      });
      if (!number) { radio.checked = true; label.classList.add("chosen"); }
      group.append(label);
    });
    panel.append(group);
  }
  panel.append(said, box);
  choose(maps[0]);
  return panel;
}

// ------------------------------------------------------------------ the slider of the scores

function softmax(scores) {
  const largest = Math.max(...scores);
  const exponentials = scores.map((score) => Math.exp(score - largest));
  const sum = exponentials.reduce((total, part) => total + part, 0);
  return exponentials.map((part) => part / sum);
}

function evenness(weights) { // entropy as a share of the largest
  const entropy = weights.reduce((total, weight) => total - (weight > 0 ? weight * Math.log(weight) : 0), 0);
  return entropy / Math.log(weights.length);
}

function sliderOf(data, id) {
  const root = Math.sqrt(data.d_k);
  const range = make("input", { type: "range", min: "0", max: "100", value: "0", id });
  const said = make("p", { class: "said", role: "status" });
  const cell = make("p", { class: "said", role: "status" });
  const box = make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "weights" });
  const columns = data.scores[0].map((_, column) => `key ${column}`);
  const rows = data.scores.map((_, row) => `query ${row}`);
  const show = () => {
    const divisor = root ** (range.value / 100);
    const weights = data.scores.map((row) => softmax(row.map((score) => score / divisor)));
    const even = weights.map(evenness).reduce((total, part) => total + part, 0) / weights.length;
    const largest = weights.map((row) => Math.max(...row)).reduce((total, part) => total + part, 0) / rows.length;
    const text = `divided by ${divisor.toFixed(2)}: evenness ${even.toFixed(2)}, ` +
      `largest weight ${largest.toFixed(2)} on average`;
    range.setAttribute("aria-valuetext", text);
    said.textContent = text;
    cell.textContent = "";
    box.replaceChildren(heatTable({ title: "weights", rows, columns, top: 1 }, weights, cell,
      (y, x) => `${rows[y]}, ${columns[x]}: ${weights[y][x].toFixed(2)}`));
  };
  range.addEventListener("input", show);
  show();
  const label = make("label", { for: id },
    `Scores of vectors of width ${data.d_k}, divided by 1 (left) to √d_k = ${root} (right)`);
  return make("div", { class: "touch" }, label, range, said, box, cell);
}

// ------------------------------------------------------------------ the page

document.querySelectorAll("figure.picture").forEach((figure, number) => {
  for (const data of figure.querySelectorAll("script")) {
    const content = JSON.parse(data.textContent);
    if (data.className === "sliders") {
      content.forEach((scores, place) => figure.after(sliderOf(scores, `slider-${number}-${place}`)));
    } else {
      const panel = touchable(content, `map-${number}`);
      figure.after(panel);
      if (data.dataset.whole === "yes") { // all that the picture shows can be touched: the picture folds
        const fold = make("details", { class: "as-picture" }, make("summary", {}, "The same as one picture"));
        figure.querySelector("img").before(fold);
        fold.append(figure.querySelector("img"));
        fold.querySelector("img").loading = "eager";
      }
    }
  }
});

document.querySelectorAll(".command").forEach((line) => {
  const code = line.querySelector("code");
  const button = make("button", { type: "button" }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch { // not allowed here: mark it, to be copied by hand
      getSelection().selectAllChildren(code);
      button.textContent = "marked";
    }
  });
  line.append(button);
});

const beside = matchMedia("(min-width: 1400px)"); // there the list of steps has a column of its own
const openSteps = () => document.querySelectorAll(".contents details").forEach((steps) => { steps.open = beside.matches; });
beside.addEventListener("change", openSteps);
openSteps();

let opened = []; // folds that were closed before printing; on paper a question keeps its answers to itself
let answered = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open], .answer)")];
  opened.forEach((fold) => { fold.open = true; });
  answered = [...document.querySelectorAll("details.answer[open]")];
  answered.forEach((fold) => { fold.open = false; });
});
addEventListener("afterprint", () => {
  opened.forEach((fold) => { fold.open = false; });
  answered.forEach((fold) => { fold.open = true; });
});
