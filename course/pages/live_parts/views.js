"use strict";

// What both live pages show: heads, the beam, checks. All text goes in as text, never as markup.

const PAUSE = 150; // milliseconds from one token to the next
const still = matchMedia("(prefers-reduced-motion: reduce)");
const timers = {};
const get = (id) => document.getElementById(id);
const percent = (p) => (p > 0 && p < 0.0005 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);
const small = (p) => (p >= 0.0005 ? p.toFixed(3) : p.toExponential(0));

/** An element with these properties ("class", "aria-…", "data-…" and the like as attributes) and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A radio button with its label, as .choice. */
function choice(group, id, value, ...label) {
  const radio = make("input", { type: "radio", name: group, id, value });
  return make("div", { class: "choice" }, radio, make("label", { for: id }, ...label));
}

/** A cell of a table with a probability, as number and as length. */
function bar(p) {
  const cell = make("td", { class: "bar" }, percent(p));
  cell.style.setProperty("--share", p);
  return cell;
}

/** tick() until it returns false; at once for those who want no motion. */
function animate(what, tick, pause = PAUSE) {
  clearTimeout(timers[what]);
  if (still.matches) {
    while (tick());
  } else if (tick()) {
    timers[what] = setTimeout(() => animate(what, tick, pause), pause);
  }
}

// ------------------------------------------------------------------ the model, and whether it is the right one

/** { model, agreement } of the page's data; null after saying in the page why there is none. */
function started(data) {
  const parts = data.own.length ? ` (${data.own.join(", ")})` : "";
  const refuse = (reason) => {
    get("problem").textContent = `This page can't run the model: ${reason}.${parts
      ? ` It was trained with parts of your own${parts}.` : ""}`;
    get("problem").hidden = false;
    return null;
  };
  const unknown = (how) => refuse(`${parts ? "this model has parts of your own" : "it has parts"} that the page `
    + `does not know: ${how}`);
  if (data.problem) return refuse(data.problem);
  try {
    const model = new Transformer(data.config, readWeights(data.weights, data.shapes, data.bits));
    const agreement = agreementWith(data.reference, model);
    if (!agreement.holds) return unknown(`its logits are off by ${agreement.gap.toExponential(0)}`);
    get("works").hidden = false;
    return { model, agreement };
  } catch (error) {
    return unknown(error.message);
  }
}

/** What there is to know about a model, in words. */
function describe({ config, parameters }) {
  return `${config.n_layers} encoder and ${config.n_layers} decoder ${config.n_layers === 1 ? "block" : "blocks"}, `
    + `${config.n_heads} heads, vectors of ${config.d_model} numbers, ${parameters.toLocaleString("en")} parameters `
    + "in all. What you type stays in this page.";
}

// ------------------------------------------------------------------ heads

const SHORT = { encoder: "Encoder", self: "Decoder", cross: "Cross-attention" };
const called = ({ kind, block, head }) => `${SHORT[kind]}, block ${block}, head ${head}`;

/** All heads of a model: { kind, block, head }. */
function headsOf({ n_layers: blocks, n_heads: heads }) {
  return Object.keys(SHORT).flatMap((kind) => [...Array(blocks).keys()].flatMap((block) =>
    [...Array(heads).keys()].map((head) => ({ kind, block, head }))));
}

/**
 * The section “Where each head looks”: a thumbnail of every head, and the chosen one as a table.
 *
 * `noun` is what the encoder reads. now() tells of the answer that is looked at: the names of the tokens of
 * `source`, of the `answer`, and of what the decoder has `read`; how many are `written`; the `place` of the
 * chosen one; and `state`, which has the weights. `changed` hears that another head is chosen.
 */
function headsView(config, noun, now, changed = () => {}) {
  const titles = { encoder: `Encoder: ${noun}s look at ${noun}s`, self: "Decoder: the answer looks at itself",
    cross: `Cross-attention: the answer looks at the ${noun}s` };
  const every = headsOf(config);
  let head = null;

  for (const [kind, title] of Object.entries(titles)) {
    const heads = every.filter((one) => one.kind === kind).map((one) => choice("head",
      `head-${every.indexOf(one)}`, every.indexOf(one), make("canvas", { "aria-hidden": "true" }),
      make("span", { class: "visually-hidden" }, `${SHORT[kind]}, `),
      `block ${one.block}, head ${one.head}`));
    get("thumbnails").append(make("p", { class: "group" }, title), make("div", { class: "thumbnails" }, ...heads));
  }
  if (config.n_heads <= 6) get("thumbnails").style.setProperty("--per-row", config.n_heads);

  /** Rows of weights, one for each token that looks, as far as they are written. */
  function mapOf({ kind, block, head: number }) {
    const { state, written } = now();
    const rows = state[kind][block].maps[number];
    return kind === "encoder" ? rows : rows.slice(0, written);
  }

  /** The tokens at the rows and at the columns of a head's map. */
  function labels({ kind }) {
    const { source, answer, read } = now();
    return { rows: kind === "encoder" ? source : answer, columns: kind === "self" ? read : source };
  }

  /** Thumbnails: one colour, as opaque as the weight is large, so that they fit light and dark. */
  function showThumbnails() {
    every.forEach((one, number) => {
      const { rows, columns } = labels(one);
      const canvas = get(`head-${number}`).parentElement.querySelector("canvas");
      const side = Math.max(rows.length, columns.length);
      canvas.width = canvas.height = side;
      const pen = canvas.getContext("2d");
      mapOf(one).forEach((row, t) => row.forEach((weight, s) => {
        pen.fillStyle = `rgba(60, 140, 220, ${weight})`;
        pen.fillRect(s, t, 1, 1);
      }));
    });
    get(`head-${every.indexOf(head)}`).checked = true;
  }

  /** What a cell says: head, who looks at whom, weight. */
  function sentence(t, s, weight) {
    const { rows, columns } = labels(head);
    const from = head.kind === "encoder" ? `${noun} ${t} (“${rows[t]}”)` : `writing token ${t} (“${rows[t]}”), it`;
    const to = head.kind === "self" ? (s ? `token ${s - 1} (“${columns[s]}”)` : "BOS, the beginning")
      : `${noun} ${s} (“${columns[s]}”)`;
    return `${called(head)}: ${from} looks at ${to}, weight ${weight.toFixed(2)}.`;
  }

  /** The chosen head, large: a table whose cells are told of in words. */
  function showMap() {
    const { rows, columns } = labels(head);
    const map = mapOf(head);
    const { place } = now();
    const at = Math.min(head.kind === "encoder" ? 0 : place, map.length - 1);
    get("chosen-head").textContent = called(head);
    get("rows").textContent = head.kind === "encoder" ? `the ${noun}s that look`
      : "the token being written (the chosen one is underlined)";
    get("columns").textContent = head.kind === "self" ? "what the decoder has read, BOS first" : `the ${noun}s`;
    const header = make("tr", {}, make("th", { scope: "col" },
      make("span", { class: "visually-hidden" }, "looks at")));
    columns.forEach((token) => header.append(make("th", { scope: "col" }, make("span", {}, token))));
    const body = rows.slice(0, map.length).map((token, t) => {
      const chosen = head.kind !== "encoder" && t === place ? { class: "now" } : {};
      const line = make("tr", chosen, make("th", { scope: "row" }, token));
      columns.forEach((_, s) => {
        const weight = map[t][s];
        const cell = make("td", { tabindex: "-1", "data-row": t, "data-column": s });
        if (weight === undefined) cell.className = "unseen";
        else cell.style.setProperty("--weight", weight);
        cell.setAttribute("aria-label", weight === undefined ? "hidden" : weight.toFixed(2));
        line.append(cell);
      });
      return line;
    });
    get("map").replaceChildren(make("thead", {}, header), make("tbody", {}, ...body));
    const largest = map[at].indexOf(Math.max(...map[at]));
    light(get("map").tBodies[0].rows[at].cells[largest + 1]);
  }

  /** Light this cell, say what it is, and let the keyboard enter the table here. */
  function light(cell) {
    get("map").querySelectorAll(".lit, [tabindex='0']").forEach((other) => {
      other.classList.remove("lit");
      other.tabIndex = -1;
    });
    const [t, s] = [Number(cell.dataset.row), Number(cell.dataset.column)];
    const weight = mapOf(head)[t][s];
    cell.tabIndex = 0;
    cell.classList.add("lit");
    const said = weight === undefined
      ? `${called(head)}: the causal mask hides what is not written yet.` : sentence(t, s, weight);
    if (get("cell").textContent !== said) get("cell").textContent = said;
  }

  for (const event of ["pointerover", "click", "focusin"]) {
    get("map").addEventListener(event, ({ target }) => {
      const cell = target.closest("td");
      if (cell) light(cell);
    });
  }
  get("map").addEventListener("keydown", (event) => {
    const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key]
      ?? [0, 0];
    const cell = event.target.closest("td");
    if (!cell || !(down || right)) return;
    event.preventDefault();
    const row = get("map").tBodies[0].rows[Number(cell.dataset.row) + down];
    const next = row && row.cells[Number(cell.dataset.column) + right + 1];
    if (next && next.tagName === "TD") next.focus();
  });
  get("thumbnails").addEventListener("change", ({ target }) => {
    head = every[Number(target.value)];
    showMap();
    changed(head);
  });

  return {
    get head() { return head; },
    /** Choose a head, and bring its thumbnail into view. */
    choose({ kind, block, head: number }) {
      head = every.find((one) => one.kind === kind && one.block === block && one.head === number);
      const chosen = get(`head-${every.indexOf(head)}`).parentElement;
      chosen.parentElement.scrollLeft = chosen.offsetLeft - chosen.offsetWidth;
    },
    show() {
      showThumbnails();
      showMap();
    },
  };
}

// ------------------------------------------------------------------ the beam

/**
 * The section “The beam as it grows”. search(width, penalty) gives what beamSearch() gives, spelled(tokens)
 * is their text, greedy() that of the greedy answer.
 */
function beamView(search, spelled, greedy) {
  let beams = { found: [], steps: [] };

  function grow() {
    beams = search(Number(get("width").value), Number(get("penalty").value));
    get("step").max = beams.steps.length;
    get("step").value = 1;
    let step = 0;
    animate("beam", () => {
      get("step").value = ++step;
      show();
      return step < beams.steps.length;
    });
  }

  function show() {
    const step = Number(get("step").value);
    const last = step === beams.steps.length;
    get("step-value").textContent = `${step} of ${beams.steps.length}`;
    get("candidates-of").textContent = `Step ${step}: the likeliest continuations, at most twice as many as the width`;
    const rows = beams.steps[step - 1].map(({ tokens, logProb, fate }) => make("tr", {},
      make("td", {}, spelled(tokens)), make("td", {}, small(Math.exp(logProb))),
      make("td", fate === "pruned" ? { class: "out" } : {}, fate)));
    get("candidates").tBodies[0].replaceChildren(...rows);
    const [best] = beams.found;
    get("best").textContent = last ? `The search ends here. Best: ${spelled(best.tokens)}, ${spelled(best.tokens)
      === greedy() ? "the same as" : "different from"} greedy.` : "";
    get("found").replaceChildren(...(last ? beams.found : []).map(({ tokens, logProb, score, finished }) => make(
      "li", {}, `${spelled(tokens)}: P ${small(Math.exp(logProb))}, log P / length^α = ${score.toFixed(3).replace("-", "−")}${finished
        ? "" : " (cut off)"}`)));
  }

  for (const id of ["width", "penalty"]) get(id).addEventListener("change", grow);
  get("grow").addEventListener("click", grow);
  get("step").addEventListener("input", () => {
    clearTimeout(timers.beam);
    if (beams.steps.length) show();
  });
  return { grow };
}

// ------------------------------------------------------------------ the same?

/** The table of what was checked in the page: rows of [statement, figure, whether it holds]. */
function showChecks(rows) {
  get("checks").tBodies[0].replaceChildren(...rows.map(([statement, figure, holds]) => make("tr", {},
    make("td", {}, statement), make("td", {}, figure),
    make("td", { class: holds ? "holds" : "fails" }, holds ? "✓ yes" : "✗ no"))));
}

/** Rows for showChecks(): the logits are PyTorch's, and the cache changes nothing of a greedy answer. */
function checksOf(model, agreement, source, answer, longest, special, withCache) {
  const before = model.computed;
  const slow = greedyWithoutCache(model, source, longest, special);
  const without = model.computed - before;
  const n = answer.tokens.length;
  const gap = Math.max(...slow.logits.flatMap((row, t) => [...row].map((logit, i) =>
    Math.abs(logit - answer.logits[t]?.[i]))));
  return [
    [`This page and PyTorch give the same ${agreement.compared} logits`,
      `largest difference ${agreement.gap.toExponential(0)}`, agreement.holds],
    [`The answer has the same ${n} tokens with and without the cache`, gap
      ? `largest difference of a logit ${gap.toExponential(0)}` : "identical logits",
      String(slow.tokens) === String(answer.tokens) && gap < 1e-3],
    ["With the cache each token goes through the decoder once; without it, all earlier tokens go through again",
      `${withCache} and ${without} tokens`, withCache === n && without === (n * (n + 1)) / 2],
  ];
}
