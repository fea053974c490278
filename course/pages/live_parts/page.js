"use strict";

// What is seen and touched. All text goes in as text, never as markup.

(() => {
  const MOST_DIGITS = 24;
  const PAUSE = 150; // milliseconds from one token to the next
  const data = JSON.parse(document.getElementById("data").textContent);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const get = (id) => document.getElementById(id);
  const name = (token) => data.tokens[token];
  const spelled = (tokens) => tokens.map(name).join(" ");
  const special = { bos: data.tokens.indexOf("BOS"), eos: data.tokens.indexOf("EOS") };
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

  // ---------------------------------------------------------------- the model, and whether it is the right one

  get("about").textContent = `Task: ${data.task}. ${data.config.n_layers} encoder and ${data.config.n_layers} decoder ${
    data.config.n_layers === 1 ? "block" : "blocks"}, ${data.config.n_heads} heads, vectors of `
    + `${data.config.d_model} numbers, ${data.parameters.toLocaleString("en")} learned numbers in all. `
    + "Nothing leaves this page.";

  function refuse(reason) {
    const parts = data.own.length ? ` (${data.own.join(", ")})` : "";
    get("problem").textContent = `This page can't run the model: ${reason}.${parts
      ? ` It was trained with parts of your own${parts}.` : ""}`;
    get("problem").hidden = false;
  }

  /** The model, or null after saying why there is none. */
  function start() {
    if (data.problem) return refuse(data.problem), null;
    try {
      const model = new Transformer(data.config, readWeights(data.weights, data.shapes));
      const agreement = agreementWith(data.reference, model);
      if (agreement.holds) return { model, agreement };
      refuse(`${data.own.length ? "this model has parts of your own" : "it has parts"} that the page does not `
        + `know: its logits are off by ${agreement.gap.toExponential(0)}`);
    } catch (error) {
      refuse(`${data.own.length ? "this model has parts of your own" : "it has parts"} that the page does not `
        + `know: ${error.message}`);
    }
    return null;
  }

  const started = start();
  if (!started) return;
  const { model, agreement } = started;
  const most = Math.min(MOST_DIGITS, data.config.max_len);
  const longest = Math.min(MOST_DIGITS + 4, data.config.max_len);
  get("works").hidden = false;

  // ---------------------------------------------------------------- what is looked at now

  let source = []; // ids
  let answer = { tokens: [], logits: [], state: null };
  let shown = 0; // tokens of the answer that are written already
  let place = 0; // the chosen one
  let head = null; // the chosen one: { kind, block, head }
  let beams = { found: [], steps: [] };
  const timers = {};

  /** tick() until it returns false; at once for those who want no motion. */
  function animate(what, tick) {
    clearTimeout(timers[what]);
    if (still.matches) {
      while (tick());
    } else if (tick()) {
      timers[what] = setTimeout(() => animate(what, tick), PAUSE);
    }
  }

  /** The ids of what was typed; null after saying what is wrong with it. */
  function typed() {
    const symbols = [...get("digits").value].filter((symbol) => !/[\s,;]/.test(symbol));
    const known = data.tokens.filter((token) => [...token].length === 1);
    const foreign = symbols.find((symbol) => !known.includes(symbol));
    const wrong = foreign ? `“${foreign}” is unknown to the model: it reads ${known.join(" ")}.`
      : !symbols.length ? `Type 1 to ${most} digits.`
      : symbols.length > most ? `${symbols.length} digits are too many: ${most} at most.` : "";
    const outside = symbols.length < 4 ? "fewer than 4" : symbols.length > 16 ? "more than 16" : "";
    const left = wrong && source.length ? ` Below is still the answer to ${spelled(source)}.` : "";
    get("complaint").textContent = wrong + left || (outside
      ? `The course trains with 4 to 16 digits; the model never saw ${outside}.` : "");
    get("digits").setAttribute("aria-invalid", wrong ? "true" : "false");
    return wrong ? null : symbols.map((symbol) => data.tokens.indexOf(symbol));
  }

  function begin() {
    const ids = typed();
    if (!ids) return;
    source = ids;
    const before = model.computed;
    answer = greedy(model, source, longest, special);
    const withCache = model.computed - before;
    get("tokens").replaceChildren();
    get("answer").textContent = "";
    get("answer").classList.remove("fails");
    get("draws").replaceChildren();
    get("drawn").textContent = "";
    shown = 0;
    const fresh = !head;
    head ??= surest();
    animate("write", write);
    const chosen = get(`head-${every.indexOf(head)}`).parentElement;
    if (fresh) chosen.parentElement.scrollLeft = chosen.offsetLeft - chosen.offsetWidth;
    clearTimeout(timers.rest);
    clearTimeout(timers.beam);
    timers.rest = setTimeout(() => { // once nobody types any more
      showChecks(withCache);
      searchBeams();
    }, 250);
  }

  /** Write one more token; false if there is none. */
  function write() {
    if (shown >= answer.tokens.length) return false;
    get("tokens").append(choice("token", `token-${shown}`, shown,
      make("span", { class: "visually-hidden" }, `token ${shown}: `), name(answer.tokens[shown])));
    shown += 1;
    choose(shown - 1);
    if (shown === answer.tokens.length) {
      const end = answer.tokens[shown - 1] === special.eos ? "" : ` (no EOS within ${longest} tokens)`;
      const right = rightAnswer();
      const same = right === spelled(answer.tokens);
      get("answer").textContent = `${spelled(source)} becomes ${spelled(answer.tokens)}${end}`
        + (right === null ? "" : same ? ": right." : `: wrong. Right is ${right}.`);
      get("answer").classList.toggle("fails", right !== null && !same);
    }
    return shown < answer.tokens.length;
  }

  const TASKS = { // as lesson 5's
    copy: (digits) => digits,
    reverse: (digits) => [...digits].reverse(),
    mirror: (digits) => [...digits].reverse().map((digit) => 9 - digit),
    sort: (digits) => [...digits].sort((a, b) => a - b),
    sum: (digits) => [...String(digits.reduce((sum, digit) => sum + digit, 0))].map(Number),
  };

  /** What a model without mistakes would write; null for a task that this page doesn't know. */
  function rightAnswer() {
    const task = TASKS[data.task];
    return task ? [...task(source.map((id) => Number(name(id)))), name(special.eos)].join(" ") : null;
  }

  function choose(token) {
    place = token;
    get(`token-${place}`).checked = true;
    showHeads();
    showMap();
    showDistribution();
  }

  // ---------------------------------------------------------------- heads

  const KINDS = { encoder: "Encoder: digits look at digits",
    self: "Decoder: the answer looks at itself", cross: "Cross-attention: the answer looks at the digits" };
  const SHORT = { encoder: "Encoder", self: "Decoder", cross: "Cross-attention" };
  const called = ({ kind, block, head: number }) =>
    `${SHORT[kind]}, block ${block}, head ${number}`;
  const every = Object.keys(KINDS).flatMap((kind) => [...Array(data.config.n_layers).keys()].flatMap((block) =>
    [...Array(data.config.n_heads).keys()].map((number) => ({ kind, block, head: number }))));

  /** Rows of weights, one for each token that looks, as far as they are written. */
  function mapOf({ kind, block, head: number }) {
    const rows = answer.state[kind][block].maps[number];
    return kind === "encoder" ? rows : rows.slice(0, shown);
  }

  /** The head of the cross-attention whose largest weights are largest on the whole. */
  function surest() {
    const sureness = ({ block, head: number }) => answer.state.cross[block].maps[number]
      .reduce((sum, row) => sum + Math.max(...row), 0);
    return every.filter(({ kind }) => kind === "cross")
      .reduce((best, one) => (sureness(one) > sureness(best) ? one : best));
  }

  /** The tokens at the rows and at the columns of a head's map. */
  function labels({ kind }) {
    const rows = kind === "encoder" ? source : answer.tokens;
    const columns = kind === "self" ? [special.bos, ...answer.tokens.slice(0, -1)] : source;
    return { rows, columns };
  }

  for (const [kind, title] of Object.entries(KINDS)) {
    const heads = every.filter((one) => one.kind === kind).map((one) => choice("head",
      `head-${every.indexOf(one)}`, every.indexOf(one), make("canvas", { "aria-hidden": "true" }),
      make("span", { class: "visually-hidden" }, `${SHORT[kind]}, `),
      `block ${one.block}, head ${one.head}`));
    get("thumbnails").append(make("p", { class: "group" }, title), make("div", { class: "thumbnails" }, ...heads));
  }
  if (data.config.n_heads <= 6) get("thumbnails").style.setProperty("--per-row", data.config.n_heads);

  /** Thumbnails: one colour, as opaque as the weight is large, so that they fit light and dark. */
  function showHeads() {
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
    const from = head.kind === "encoder" ? `digit ${t} (“${name(rows[t])}”)`
      : `writing token ${t} (“${name(rows[t])}”), it`;
    const to = head.kind === "self" ? (s ? `token ${s - 1} (“${name(columns[s])}”)` : "BOS, the beginning")
      : `digit ${s} (“${name(columns[s])}”)`;
    return `${called(head)}: ${from} looks at ${to}, weight ${weight.toFixed(2)}.`;
  }

  /** The chosen head, large: a table whose cells are told of in words. */
  function showMap() {
    const { rows, columns } = labels(head);
    const map = mapOf(head);
    const at = Math.min(head.kind === "encoder" ? 0 : place, map.length - 1);
    get("chosen-head").textContent = called(head);
    get("rows").textContent = head.kind === "encoder" ? "the digits that look"
      : "the token being written (underlined: the chosen one)";
    get("columns").textContent = head.kind === "self" ? "what the decoder has read, BOS first" : "the digits";
    const header = make("tr", {}, make("th", { scope: "col" },
      make("span", { class: "visually-hidden" }, "looks at")));
    columns.forEach((token) => header.append(make("th", { scope: "col" }, name(token))));
    const body = rows.slice(0, map.length).map((token, t) => {
      const now = head.kind !== "encoder" && t === place ? { class: "now" } : {};
      const line = make("tr", now, make("th", { scope: "row" }, name(token)));
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
  });
  get("tokens").addEventListener("change", ({ target }) => {
    clearTimeout(timers.write);
    while (write()); // the rest at once: somebody looks at one of them
    choose(Number(target.value));
  });

  // ---------------------------------------------------------------- the next token

  get("top-k").max = data.tokens.length;
  const sliders = () => [get("temperature"), get("top-k"), get("top-p")].map((slider) => Number(slider.value));
  const adjusted = (logits) => softmax(adjust(logits, ...sliders()));

  function showDistribution() {
    const [temperature, topK, topP] = sliders();
    get("temperature-value").textContent = temperature.toFixed(1);
    get("top-k-value").textContent = topK || "all";
    get("top-p-value").textContent = topP.toFixed(2);
    const logits = answer.logits[place];
    const [before, after] = [softmax(logits), adjusted(logits)];
    get("place").textContent = `Token ${place}, after ${spelled([special.bos, ...answer.tokens.slice(0, place)])}`;
    const order = before.map((_, token) => token).sort((a, b) => before[b] - before[a] || a - b);
    get("distribution").tBodies[0].replaceChildren(...order.map((token) => {
      const bars = [before[token], after[token]].map((p) => {
        const cell = make("td", { class: "bar" }, percent(p));
        cell.style.setProperty("--share", p);
        return cell;
      });
      if (!after[token]) bars[1].replaceChildren("cut off");
      return make("tr", {}, make("th", after[token] ? { scope: "row" } : { scope: "row", class: "out" },
        name(token)), ...bars);
    }));
  }

  function drawAnswer() {
    let logProb = 0;
    const drawn = generate(model, source, longest, special, (logits) => {
      const probabilities = adjusted(logits);
      const token = draw(probabilities, Math.random());
      logProb += Math.log(probabilities[token]);
      return token;
    });
    const same = spelled(drawn.tokens) === spelled(answer.tokens) ? ", as greedy" : "";
    const text = `${spelled(drawn.tokens)} (drawn with probability ${small(Math.exp(logProb))}${same})`;
    get("drawn").textContent = `Drawn: ${text}`;
    get("draws").prepend(make("li", {}, text));
    while (get("draws").children.length > 6) get("draws").lastChild.remove();
  }

  for (const id of ["temperature", "top-k", "top-p"]) get(id).addEventListener("input", showDistribution);
  get("draw").addEventListener("click", drawAnswer);
  get("sure").addEventListener("click", () => {
    [get("temperature").value, get("top-k").value, get("top-p").value] = [1, 0, 1];
    showDistribution();
  });

  // ---------------------------------------------------------------- the beam

  function searchBeams() {
    const [width, penalty] = [Number(get("width").value), Number(get("penalty").value)];
    beams = beamSearch(model, source, longest, special, width, penalty);
    get("step").max = beams.steps.length;
    get("step").value = 1;
    let step = 0;
    animate("beam", () => {
      get("step").value = ++step;
      showBeam();
      return step < beams.steps.length;
    });
  }

  function showBeam() {
    const step = Number(get("step").value);
    const last = step === beams.steps.length;
    get("step-value").textContent = `${step} of ${beams.steps.length}`;
    get("candidates-of").textContent = `Step ${step}: the likeliest continuations, at most twice the width`;
    const rows = beams.steps[step - 1].map(({ tokens, logProb, fate }) => make("tr", {},
      make("td", {}, spelled(tokens)), make("td", {}, small(Math.exp(logProb))),
      make("td", fate === "pruned" ? { class: "out" } : {}, fate)));
    get("candidates").tBodies[0].replaceChildren(...rows);
    const [best] = beams.found;
    const same = spelled(best.tokens) === spelled(answer.tokens);
    get("best").textContent = last ? `The search ends here. Best: ${spelled(best.tokens)}, ${same
      ? "the same as" : "other than"} greedy.` : "";
    get("found").replaceChildren(...(last ? beams.found : []).map(({ tokens, logProb, score, finished }) => make(
      "li", {}, `${spelled(tokens)}: P ${small(Math.exp(logProb))}, log P / length^α = ${score.toFixed(3).replace("-", "−")}${finished
        ? "" : " (cut off)"}`)));
  }

  for (const id of ["width", "penalty"]) get(id).addEventListener("change", searchBeams);
  get("grow").addEventListener("click", searchBeams);
  get("step").addEventListener("input", () => {
    clearTimeout(timers.beam);
    showBeam();
  });

  // ---------------------------------------------------------------- the same?

  function showChecks(withCache) {
    const before = model.computed;
    const slow = greedyWithoutCache(model, source, longest, special);
    const without = model.computed - before;
    const n = answer.tokens.length;
    const gap = Math.max(...slow.logits.flatMap((row, t) => [...row].map((logit, i) =>
      Math.abs(logit - answer.logits[t]?.[i]))));
    const rows = [
      [`This page and PyTorch give the same ${agreement.compared} logits`,
        `largest difference ${agreement.gap.toExponential(0)}`, agreement.holds],
      [`With and without the cache: the same ${n} tokens`, gap
        ? `largest difference of a logit ${gap.toExponential(0)}` : "identical logits",
        spelled(slow.tokens) === spelled(answer.tokens) && gap < 1e-3],
      ["With the cache each token goes through the decoder once; without, with all before it again",
        `${withCache} and ${without} tokens`, withCache === n && without === (n * (n + 1)) / 2],
    ];
    get("checks").tBodies[0].replaceChildren(...rows.map(([statement, figure, holds]) => make("tr", {},
      make("td", {}, statement), make("td", {}, figure),
      make("td", { class: holds ? "holds" : "fails" }, holds ? "✓ yes" : "✗ no"))));
  }

  // ---------------------------------------------------------------- go

  get("digits").addEventListener("input", begin);
  get("again").addEventListener("click", begin);
  get("random").addEventListener("click", () => {
    const digits = data.tokens.filter((token) => [...token].length === 1);
    const count = Math.min(most, 4 + Math.floor(Math.random() * 13));
    get("digits").value = Array.from({ length: count }, () =>
      digits[Math.floor(Math.random() * digits.length)]).join("");
    begin();
  });
  begin();
})();
