"use strict";

// The page of lesson 5: digits in, the answer out. All text goes in as text, never as markup.

(() => {
  const MOST_DIGITS = 24;
  const data = JSON.parse(get("data").textContent);
  const name = (token) => data.tokens[token];
  const spelled = (tokens) => tokens.map(name).join(" ");
  const special = { bos: data.tokens.indexOf("BOS"), eos: data.tokens.indexOf("EOS") };

  get("about").textContent = `Task: ${data.task}. ${describe(data)}`;
  const running = started(data);
  if (!running) return;
  const { model, agreement } = running;
  const most = Math.min(MOST_DIGITS, data.config.max_len);
  const longest = Math.min(MOST_DIGITS + 4, data.config.max_len);

  // ---------------------------------------------------------------- what is looked at now

  let source = []; // ids
  let answer = { tokens: [], logits: [], state: null };
  let shown = 0; // tokens of the answer that are written already
  let place = 0; // the chosen one

  const heads = headsView(data.config, "digit", () => ({ state: answer.state, written: shown, place,
    source: source.map(name), answer: answer.tokens.map(name),
    read: [special.bos, ...answer.tokens.slice(0, -1)].map(name) }));
  const beam = beamView((width, penalty) => beamSearch(model, source, longest, special, width, penalty),
    spelled, () => spelled(answer.tokens));

  /** The ids of what was typed; null after saying what is wrong with it. */
  function typed() {
    const symbols = [...get("digits").value].filter((symbol) => !/[\s,;]/.test(symbol));
    const known = data.tokens.filter((token) => [...token].length === 1);
    const foreign = symbols.find((symbol) => !known.includes(symbol));
    const wrong = foreign ? `“${foreign}” is unknown to the model: it reads ${known.join(" ")}.`
      : !symbols.length ? `Type 1 to ${most} digits.`
      : symbols.length > most ? `${symbols.length} digits are too many: ${most} at most.` : "";
    const outside = symbols.length < 4 ? "fewer than 4" : symbols.length > 16 ? "more than 16" : "";
    const left = wrong && source.length ? ` The answer below is still the one to ${spelled(source)}.` : "";
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
    if (!heads.head) heads.choose(surest());
    animate("write", write);
    clearTimeout(timers.rest);
    clearTimeout(timers.beam);
    timers.rest = setTimeout(() => { // once nobody types any more
      showChecks(checksOf(model, agreement, source, answer, longest, special, withCache));
      beam.grow();
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
        + (right === null ? "" : same ? ": right." : `: wrong. The right answer is ${right}.`);
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
    heads.show();
    showDistribution();
  }

  /** The head of the cross-attention whose largest weights are largest on the whole. */
  function surest() {
    const sureness = ({ block, head: number }) => answer.state.cross[block].maps[number]
      .reduce((sum, row) => sum + Math.max(...row), 0);
    return headsOf(data.config).filter(({ kind }) => kind === "cross")
      .reduce((best, one) => (sureness(one) > sureness(best) ? one : best));
  }

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
    get("distribution").tBodies[0].replaceChildren(...firstOf(before).map((token) => {
      const bars = [before[token], after[token]].map(bar);
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
    const same = spelled(drawn.tokens) === spelled(answer.tokens) ? ", the same as greedy" : "";
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
