"use strict";

// The page of lesson 8: sentences in, their translation out. All text goes in as text, never as markup.

(() => {
  const WRITING = 60; // milliseconds from one piece to the next
  const SOME = 0.05; // a smaller weight isn't named
  const RUNNERS = 5; // likeliest pieces that are shown
  const data = JSON.parse(get("data").textContent);
  const special = { bos: data.tokens.indexOf("BOS"), eos: data.tokens.indexOf("EOS") };
  const nameOf = (id) => data.tokens[id].replaceAll(" ", "␣");

  const [from, to] = data.languages;
  get("about").textContent = `${from.name} to ${to.name}. ${describe(data)}`;
  get("source-language").textContent = `Your sentences (${from.name})`;
  get("unsure").textContent = percent(data.unsure);
  const running = started(data);
  if (!running) return;
  const { model, agreement } = running;
  const pieces = new Pieces(data.encoding);
  const setOf = (words) => new Set(words.split(" ").filter(Boolean));
  const trained = { known: setOf(data.met.words), rare: setOf(data.met.rare), untrained: new Set(data.met.untrained) };
  const limit = (ids) => answerLimit(ids.length, data.config.max_len);
  const spelled = (tokens) => pieces.decode(tokens).trim()
    + (tokens[tokens.length - 1] === special.eos ? " EOS" : "");

  // ---------------------------------------------------------------- one sentence and its answer

  const answers = new Map(); // what was computed already

  /** compute() once for each key, as long as there aren't too many. */
  function once(key, compute) {
    if (answers.size > 50) answers.clear();
    if (!answers.has(key)) answers.set(key, compute());
    return answers.get(key);
  }

  const greedyOf = (ids) => once(`greedy ${ids}`, () => greedy(model, ids, limit(ids), special));
  const beamsOf = (ids, width, penalty) => once(`${width} ${penalty} ${ids}`, () =>
    beamSearch(model, ids, limit(ids), special, width, penalty));

  /** The answer that the learner asked for → { tokens, logits, state, probabilities, words, text }. */
  function answerOf(ids) {
    const found = get("greedy").checked ? greedyOf(ids) : follow(model, ids,
      beamsOf(ids, Number(get("width").value), Number(get("penalty").value)).found[0].tokens, special);
    const { tokens, logits } = found;
    const probabilities = logits.map(softmax);
    const end = tokens[tokens.length - 1] === special.eos ? [{ text: "EOS", pieces: [tokens.length - 1] }] : [];
    return { ...found, probabilities, certain: tokens.map((token, t) => probabilities[t][token]),
      words: [...pieces.words(tokens), ...end], text: pieces.decode(tokens) };
  }

  let rows = []; // one for each sentence
  let pinned = null; // { row, word }: what all below is about

  /** What is shown of a sentence: its words, what is doubtful, and room for its translation. */
  function rowOf(typed, number, key) {
    const text = repaired(typed, data.met, data.usual);
    const ids = pieces.encode(text);
    const words = pieces.words(ids);
    const said = new Set(text === typed ? [] : [`read as “${text}”`]);
    const chips = words.map((word) => {
      const doubt = doubtOf(word, ids, trained);
      if (doubt) said.add(`“${word.text.trim()}”: ${doubt}`);
      const parts = word.pieces.map((place) => pieces.decode([ids[place]]).trim()).filter(Boolean)
        .map((part) => make("span", { class: "piece" }, part));
      return make("span", doubt ? { class: "word doubted" } : { class: "word" }, ...parts);
    });
    const notes = make("ul", { class: "notes" }, ...[...said].map((note) => make("li", {}, note)));
    const written = make("div", { class: "tokens", lang: to.code });
    const legend = make("legend", { class: "visually-hidden" }, `Translation of sentence ${number + 1}`);
    const element = make("div", { class: "sentence", "data-row": number },
      make("p", { class: "from", lang: from.code }, ...chips.flatMap((chip) => [chip, " "])),
      make("fieldset", {}, legend, written), notes);
    const row = { key, number, text, ids, words, chips, written, notes, element, answer: null, shown: 0, done: false };
    if (ids.length > data.config.max_len) {
      row.done = true;
      notes.append(make("li", {}, `a sentence of ${ids.length} pieces is too long for a model with max_len ${
        data.config.max_len}`));
    }
    return row;
  }

  function begin() {
    const { value, maxLength } = get("sentence");
    const typed = sentencesIn(value, data.titles);
    get("complaint").textContent = !typed.length ? "Type a sentence. Below is the translation of the last one."
      : value.length < maxLength ? "" : `No more than ${maxLength.toLocaleString("en")} characters are read.`;
    if (!typed.length) return;
    const way = get("greedy").checked ? "greedy" : `beam ${get("width").value} ${get("penalty").value}`;
    rows = typed.map((sentence, number) => {
      const key = `${way} ${sentence}`;
      return rows[number]?.key === key ? rows[number] : rowOf(sentence, number, key);
    });
    get("sentences").replaceChildren(...rows.map(({ element }) => element));
    if (!rows.includes(pinned?.row)) pinned = null;
    get("answer").textContent = "";
    for (const timer of ["rest", "beam"]) clearTimeout(timers[timer]);
    animate("write", write, WRITING);
  }

  /** Write one more piece of the first translation that isn't whole; false if all are. */
  function write() {
    const row = rows.find(({ done }) => !done);
    if (row) writeInto(row);
    const more = rows.some(({ done }) => !done);
    if (!more) finish();
    return more;
  }

  /** Write the rest at once: somebody looks at what was made of it. */
  function hurry() {
    clearTimeout(timers.write);
    if (rows.some(({ done }) => !done)) while (write());
  }

  function writeInto(row) {
    row.answer ??= answerOf(row.ids);
    const { tokens, words, certain } = row.answer;
    const place = row.shown++;
    row.done = row.shown === tokens.length;
    const number = words.findIndex((word) => word.pieces.includes(place));
    if (number < 0) return; // PAD or BOS: nothing to see
    const id = `word-${row.number}-${number}`;
    if (!row.written.querySelector(`#${id}`)) {
      row.written.append(choice("word", id, number, make("span", { class: "said" }), make("span", { class: "seen" })));
    }
    const box = row.written.querySelector(`#${id}`).parentElement;
    const there = words[number].pieces.filter((other) => other <= place);
    const end = tokens[place] === special.eos;
    box.querySelector(".said").textContent = end ? "EOS" : pieces.decode(there.map((one) => tokens[one])).trim();
    if (there.some((one) => certain[one] < data.unsure)) box.classList.add("unsure");
    tellWhere(row, number);
    show({ row, word: number });
  }

  /** All is written: what is below is about the word that the model is least sure of, or a chosen one. */
  function finish() {
    for (const row of rows.filter(({ answer, told }) => answer && !told)) {
      row.told = true;
      const sure = certainty(row.answer.certain);
      if (sure < data.unsure) {
        row.notes.append(make("li", {}, `unsure: ${(100 * sure).toFixed(0)} % per piece on average; nine in ten `
          + `validation answers have more than ${(100 * data.unsure).toFixed(0)} %`));
      }
      if (row.answer.tokens[row.answer.tokens.length - 1] !== special.eos) {
        row.notes.append(make("li", {}, `cut off: no EOS within ${limit(row.ids)} pieces`));
      }
    }
    const said = rows.filter(({ answer }) => answer).map(({ answer }) => answer.text.trim()).join(" ");
    const example = data.examples.find(({ source }) => source === get("sentence").value.trim());
    get("answer").replaceChildren(make("span", { lang: to.code }, said), !example ? ""
      : example.target === said ? " (the same as the reference)" : ` (the reference: ${example.target})`);
    const first = rows.find(({ answer }) => answer && answer.words.length);
    for (const id of ["word", "heads", "beam"]) get(id).parentElement.hidden = !first;
    if (!pinned && first) {
      const sure = ({ pieces: places }) => Math.min(...places.map((place) => first.answer.certain[place]));
      const words = first.answer.words;
      pinned = { row: first, word: words.indexOf(words.reduce((a, b) => (sure(b) < sure(a) ? b : a))) };
    }
    if (pinned) pin(pinned);
    clearTimeout(timers.rest);
    timers.rest = setTimeout(compare, 250); // once nobody types any more
  }

  // ---------------------------------------------------------------- where it looked

  let looking = alignmentHead(); // the head of the cross-attention whose weights are under the words

  /** The cross-attention that, over the compared sentences, has at each source piece the largest weight. */
  function alignmentHead() {
    const seen = data.reference.map(({ source, input }) => {
      const state = model.encode(source);
      model.decode(input, state);
      return source.map((_, s) => ({ kind, block, head }) =>
        Math.max(...state[kind][block].maps[head].map((row) => row[s])));
    }).flat();
    const covered = (head) => seen.reduce((sum, largest) => sum + largest(head), 0);
    return headsOf(data.config).filter(({ kind }) => kind === "cross")
      .reduce((best, one) => (covered(one) > covered(best) ? one : best));
  }

  /** A head's weights of a written word on the words of its source: [{ text, weight }]. */
  function looked({ answer, words }, number, { block, head } = looking) {
    const map = answer.state.cross[block].maps[head];
    const [weights] = wordWeights(map, [answer.words[number]], words);
    return words.map(({ text }, place) => ({ text: text.trim(), weight: weights[place] }));
  }

  function nameLooking() {
    get("looking").textContent = `${called(looking)}.`;
  }

  const most = (weights) => [...weights].sort((a, b) => b.weight - a.weight);

  /** Under a written word: where it looked most. */
  function tellWhere(row, number) {
    const [{ text }] = most(looked(row, number));
    row.written.querySelector(`#word-${row.number}-${number} + label .seen`).replaceChildren(
      make("span", { class: "visually-hidden", lang: "en" }, ", looked most at "),
      make("span", { lang: from.code }, text));
  }

  /** Everything that was made of one word: its pieces, where it looked, and what else it might have been. */
  function show({ row, word }) {
    const { tokens, words, certain, probabilities } = row.answer;
    const weights = looked(row, word);
    rows.forEach((other) => other.chips.forEach((chip, place) =>
      chip.style.setProperty("--weight", other === row ? weights[place].weight : 0)));
    for (const box of get("sentences").querySelectorAll(".choice.shown")) box.classList.remove("shown");
    get(`word-${row.number}-${word}`).parentElement.classList.add("shown");
    const there = words[word].pieces.filter((place) => place < row.shown);
    const named = there.map((place) => `${nameOf(tokens[place])} (${percent(certain[place])})`);
    const [first, second] = most(weights);
    get("chosen-word").textContent = `“${words[word].text.trim()}”`;
    get("made").textContent = `${named.length === 1 ? "One piece" : `${named.length} pieces`}: ${named.join(", ")}. `
      + `${called(looking)} looked most at “${first.text}” (${first.weight.toFixed(2)})${second?.weight >= SOME
        ? `, then at “${second.text}” (${second.weight.toFixed(2)})` : ""}. A weight says where the model looked, `
      + "not whether the answer depends on it.";
    get("by-head").replaceChildren(...headsOf(data.config).filter(({ kind }) => kind === "cross").map((head) => {
      const [{ text, weight }] = most(looked(row, word, head));
      return make("li", {}, `block ${head.block}, head ${head.head}: `, make("b", {}, text), ` ${weight.toFixed(2)}`);
    }));
    get("runners").replaceChildren(...there.map((place) => {
      const likely = firstOf(probabilities[place], RUNNERS);
      const listed = likely.includes(tokens[place]) ? likely : [...likely, tokens[place]];
      return make("table", { class: "plain" }, make("caption", {}, `Likeliest after ${
        place ? `“${pieces.decode(tokens.slice(0, place)).trim()}”` : "BOS"}`),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "piece"), make("th", { scope: "col" }, "probability"))),
      make("tbody", {}, ...listed.map((id) => make("tr", id === tokens[place] ? { class: "now" } : {},
        make("th", { scope: "row" }, nameOf(id)), bar(probabilities[place][id])))));
    }));
  }

  /** Show a word, and let all below be about it. */
  function pin(what) {
    const moved = pinned?.row !== what.row;
    pinned = what;
    get(`word-${what.row.number}-${what.word}`).checked = true;
    show(what);
    if (!heads.head) heads.choose(looking);
    heads.show();
    if (moved) beam.grow();
  }

  /** The word of a box in a translation; null elsewhere. */
  function wordAt(target) {
    const radio = target.closest(".choice")?.querySelector("[name=word]");
    const row = rows[target.closest(".sentence")?.dataset.row];
    return radio && row?.answer ? { row, word: Number(radio.value) } : null;
  }

  get("sentences").addEventListener("pointerover", ({ target }) => {
    const word = wordAt(target);
    if (word && !rows.some(({ done }) => !done)) show(word);
  });
  get("sentences").addEventListener("pointerleave", () => pinned && show(pinned));
  get("sentences").addEventListener("change", ({ target }) => {
    hurry();
    const word = wordAt(target);
    if (word) pin(word);
  });

  // ---------------------------------------------------------------- heads, beam, the same?

  const heads = headsView(data.config, "source piece", () => {
    hurry();
    const { row: { answer, ids, shown }, word } = pinned;
    return { state: answer.state, written: shown, place: answer.words[word].pieces[0], source: ids.map(nameOf),
      answer: answer.tokens.map(nameOf), read: [special.bos, ...answer.tokens.slice(0, -1)].map(nameOf) };
  }, (head) => {
    if (head.kind !== "cross") return;
    looking = head;
    nameLooking();
    for (const row of rows) row.answer?.words.forEach((_, number) => tellWhere(row, number));
    show(pinned);
  });
  const chosen = () => {
    hurry();
    return pinned.row.ids;
  };
  const beam = beamView((width, penalty) => beamsOf(chosen(), width, penalty), spelled,
    () => spelled(greedyOf(chosen()).tokens));

  let compared = false;

  function compare() {
    if (!pinned) return;
    beam.grow();
    if (compared) return;
    compared = true;
    const ids = pieces.encode(data.examples[0].source);
    const before = model.computed;
    const answer = greedy(model, ids, limit(ids), special);
    const rowsOfChecks = checksOf(model, agreement, ids, answer, limit(ids), special, model.computed - before);
    const some = data.examples.slice(0, 5);
    const same = some.filter(({ source, answer: wanted }) =>
      pieces.decode(greedyOf(pieces.encode(source)).tokens) === wanted).length;
    const { sentences, differ, exact } = data.compared;
    rowsOfChecks.push(
      ["This page and Python, both with weights in 8 bits, give the same answers to some test sentences",
        `${same} of ${some.length}`, same === some.length],
      [`In Python, answers with weights in 8 bits and in 32 are the same for more than 90 % of ${
        sentences.toLocaleString("en")} test sentences`,
      `${differ.toLocaleString("en")} differ; exact match ${percent(exact[0])} with 8 bits, ${
        percent(exact[1])} with 32`,
      differ < sentences / 10]);
    showChecks(rowsOfChecks);
  }

  for (const id of ["width", "penalty"]) {
    get(id).addEventListener("change", () => get("by-beam").checked && begin());
  }

  // ---------------------------------------------------------------- go

  get("sentence").addEventListener("input", () => {
    clearTimeout(timers.typing);
    timers.typing = setTimeout(begin, still.matches ? 0 : 200);
  });
  for (const id of ["greedy", "by-beam"]) get(id).addEventListener("change", begin);
  get("again").addEventListener("click", () => {
    rows = [];
    begin();
  });
  get("another").addEventListener("click", () => {
    const others = data.examples.filter(({ source }) => source !== get("sentence").value);
    if (others.length) get("sentence").value = others[Math.floor(Math.random() * others.length)].source;
    begin();
  });
  nameLooking();
  get("sentence").value = data.examples[0].source;
  begin();
})();
