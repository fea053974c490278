"use strict";

// What somebody types, as the model knows it: single sentences with a capital and a mark, of trained words.
//
// `met` says what the training sources have in common; it and all limits come from Python.

/** The sentences of a text: cut at line ends, and behind . ? ! … and a space, but not behind a title. */
function sentencesIn(text, titles) {
  const isTitle = (part) => titles.some((title) => part === `${title}.` || part.endsWith(` ${title}.`));
  return text.split("\n").flatMap((line) => {
    const found = [];
    for (const part of line.trim().split(/(?<=[.?!…])\s+(?=\S)/u).filter(Boolean)) {
      if (found.length && isTitle(found[found.length - 1])) found.push(`${found.pop()} ${part}`);
      else found.push(part);
    }
    return found;
  });
}

/** The sentence with the capital and the mark that nearly all training sources have. */
function repaired(sentence, met) {
  const [first, ...rest] = sentence;
  const begun = met.capital > 0.9 ? first.toUpperCase() + rest.join("") : sentence;
  return met.mark > 0.9 && !met.ends.includes([...sentence].pop()) ? `${begun}.` : begun;
}

/** What was repaired, in words. */
function repairs(sentence, better) {
  const capital = better.slice(0, sentence.length) !== sentence;
  const mark = better.endsWith(".") && !sentence.endsWith(".");
  const what = [capital ? "the capital" : "", mark ? "the full stop" : ""].filter(Boolean);
  return what.length ? `${what.join(" and ")} added, as training sentences have` : "";
}

/** A word without case, as Python's casefold() gives it. */
const folded = (word) => word.trim().toUpperCase().toLowerCase().replaceAll("ς", "σ");

/**
 * What training knows of a word of a source: "" if nothing is missing, or that it never occurred, and which of
 * its pieces were rare. `counts` says how often training sources have each id.
 */
function doubtOf({ text, pieces }, ids, known, counts, rare, nameOf) {
  if (!/[\p{L}\p{N}]/u.test(text)) return "";
  const seldom = pieces.map((place) => ids[place]).filter((id) => counts[id] < rare)
    .map((id) => `“${nameOf(id)}” ${counts[id] ? `${counts[id]} ×` : "never"}`);
  const pieced = seldom.length ? `rare pieces in training: ${[...new Set(seldom)].join(", ")}` : "";
  const unknown = known.size && !known.has(folded(text)) ? "never met in training" : "";
  return [unknown, pieced].filter(Boolean).join("; ");
}

/** Pieces that an answer may have: twice the source's, rounded up to tens, plus 20; maxLength at most. */
const answerLimit = (count, maxLength) => Math.min(maxLength, 20 * Math.ceil(count / 10) + 20);

/** The mean probability per piece, as a geometric mean. */
function certainty(probabilities) {
  const logs = probabilities.map(Math.log);
  return Math.exp(logs.reduce((sum, log) => sum + log, 0) / Math.max(1, logs.length));
}

/** Weights between pieces → between words: a row is the mean of its word's rows, a column their sum. */
function wordWeights(map, targetWords, sourceWords) {
  return targetWords.map(({ pieces: rows }) => sourceWords.map(({ pieces: columns }) => rows.reduce((sum, row) =>
    sum + columns.reduce((inner, column) => inner + map[row][column], 0), 0) / rows.length));
}
