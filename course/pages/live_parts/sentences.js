"use strict";

// What somebody types, as the model knows it: single sentences with a capital and a mark, of trained words.
//
// `met` says what the training sources have in common; it and all limits come from Python.

// The rules are those of course/training/replies.py, in the same order.

/** The sentences of a text: cut at line ends, and by rule 1. */
function sentencesIn(text, titles) {
  const ends = /[.?!…]+["'”’»)\]]*\s+|[。？！]+[」』”’）]*\s*/gu;
  const abbreviated = new RegExp(`(?:^|[\\s"“«(])(?:${titles.join("|")})\\.$`, "i");
  return text.split("\n").flatMap((typed) => {
    const [line, found] = [typed.trim(), []];
    let begin = 0;
    for (const match of line.matchAll(ends)) {
      const end = match.index + match[0].length;
      const before = line.slice(begin, end).trimEnd();
      if (!abbreviated.test(before)) {
        found.push(before);
        begin = end;
      }
    }
    return begin < line.length ? [...found, line.slice(begin)] : found;
  });
}

/** The sentence as the model reads it, by rule 2: with the capital and the mark that usual sources have. */
function repaired(typed, met, usual) {
  const sentence = typed.trim().normalize("NFC").replace(/[ \t\r\n]+/gu, " ");
  const [first = "", ...rest] = sentence;
  const begun = met.capital > usual ? first.toUpperCase() + rest.join("") : sentence;
  const bare = begun.replace(/["'”’»)\]」』）]+$/u, "");
  return begun && met.mark > usual && ![...met.ends].includes([...bare].pop()) ? `${begun}.` : begun;
}

/** A word without case, as Python's casefold() gives it. */
const folded = (word) => word.trim().toUpperCase().toLowerCase().replaceAll("ς", "σ");

/** What training knows of a word of a source, by rule 3: "" if nothing is doubtful. */
function doubtOf({ text, pieces }, ids, { known, rare, untrained }) {
  if (!known.size || !/[\p{L}\p{N}]/u.test(text)) return "";
  if (pieces.some((place) => untrained.has(ids[place]))) return "with pieces that no training sentence has";
  if (!known.has(folded(text))) return "never met in training";
  return rare.has(folded(text)) ? "rare in training" : "";
}

/** Pieces that an answer may have: twice the source's, rounded up to tens, plus 20; maxLength at most. */
const answerLimit = (count, maxLength) => Math.min(maxLength, 20 * Math.ceil(count / 10) + 20);

/** How sure the model is, by rule 4: the geometric mean of the probabilities of an answer's pieces. */
function certainty(probabilities) {
  const logs = probabilities.map(Math.log);
  return Math.exp(logs.reduce((sum, log) => sum + log, 0) / Math.max(1, logs.length));
}

/** Weights between pieces → between words: a row is the mean of its word's rows, a column their sum. */
function wordWeights(map, targetWords, sourceWords) {
  return targetWords.map(({ pieces: rows }) => sourceWords.map(({ pieces: columns }) => rows.reduce((sum, row) =>
    sum + columns.reduce((inner, column) => inner + map[row][column], 0), 0) / rows.length));
}
