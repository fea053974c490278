"use strict";

// From logits to answers: greedy, sampling, beam search (lesson 6). Tokens are ids; no answer holds BOS.

const likeliest = (numbers) => numbers.reduce((best, number, i) => (number > numbers[best] ? i : best), 0);

function logSoftmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const logSum = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
  return Array.from(logits, (logit) => logit - largest - logSum);
}

/** A copy that can be continued another way: the vectors themselves are shared. */
function copyOf(state) {
  const copied = (cache) => ({ keys: [...cache.keys], values: [...cache.values],
    maps: cache.maps.map((map) => [...map]) });
  return { ...state, self: state.self.map(copied), cross: state.cross.map(copied) };
}

/** pick(logits) says each next token → { tokens, logits, state }; one token at a time, with the cache. */
function generate(model, source, maxLength, { bos, eos }, pick) {
  const state = model.encode(source);
  const tokens = [];
  const logits = [];
  while (tokens.length < maxLength && tokens[tokens.length - 1] !== eos) {
    const [next] = model.decode([tokens.length ? tokens[tokens.length - 1] : bos], state);
    logits.push(next);
    tokens.push(pick(next));
  }
  return { tokens, logits, state };
}

const greedy = (model, source, maxLength, special) => generate(model, source, maxLength, special, likeliest);

/** The model with a given answer: each of its tokens is fed in turn → { tokens, logits, state }. */
function follow(model, source, tokens, { bos }) {
  const state = model.encode(source);
  return { tokens, logits: model.decode([bos, ...tokens.slice(0, -1)], state), state };
}

/** The same without a cache: each step runs the decoder over the whole answer so far. */
function greedyWithoutCache(model, source, maxLength, { bos, eos }) {
  const encoded = model.encode(source);
  const tokens = [];
  const logits = [];
  while (tokens.length < maxLength && tokens[tokens.length - 1] !== eos) {
    const all = model.decode([bos, ...tokens], copyOf(encoded)); // nothing is remembered
    logits.push(all[all.length - 1]);
    tokens.push(likeliest(all[all.length - 1]));
  }
  return { tokens, logits };
}

/** Logits divided by the temperature, −∞ for what top-k, and then top-p, cut off. */
function adjust(logits, temperature, topK, topP) {
  const best = likeliest(logits);
  if (temperature < 1e-37) return Array.from(logits, (_, i) => (i === best ? 0 : -Infinity));
  let adjusted = Array.from(logits, (logit) => (logit - logits[best]) / temperature);
  if (topK > 0 && topK < adjusted.length) {
    const kth = [...adjusted].sort((a, b) => b - a)[topK - 1];
    adjusted = adjusted.map((logit) => (logit < kth ? -Infinity : logit)); // what ties with it stays
  }
  if (topP < 1) {
    const probabilities = softmax(adjusted);
    let mass = 0; // of all likelier tokens
    firstOf(probabilities).forEach((i, rank) => {
      if (rank && mass >= topP - 1e-6) adjusted[i] = -Infinity;
      mass += probabilities[i];
    });
  }
  return adjusted;
}

/** An index, drawn with these probabilities by a number from 0 to 1. */
function draw(probabilities, chance) {
  let index = 0;
  let mass = 0;
  probabilities.forEach((probability, i) => {
    if (probability > 0 && mass <= chance) index = i;
    mass += probability;
  });
  return index;
}

/**
 * Logits of the model, and those that PyTorch computed with the same weights → { compared, gap, holds }.
 *
 * PyTorch's are there for each `every`-th id.
 */
function agreementWith(reference, model) {
  let [compared, gap, largest] = [0, 0, 1];
  for (const { source, input, logits, every } of reference) {
    model.decode(input, model.encode(source)).forEach((row, t) => logits[t].forEach((wanted, i) => {
      const apart = Math.abs(row[i * every] - wanted);
      if (!(apart <= gap)) gap = apart; // NaN, too, is a difference
      largest = Math.max(largest, Math.abs(wanted));
      compared += 1;
    }));
  }
  return { compared, gap, holds: compared > 0 && gap <= 1e-4 * largest };
}

/** The places of the `count` largest numbers, or of all, the largest first; of equal ones the first. */
function firstOf(numbers, count = numbers.length) {
  return Array.from(numbers, (_, i) => i).sort((a, b) => numbers[b] - numbers[a] || a - b).slice(0, count);
}

/**
 * → { found, steps }: the best hypotheses { tokens, logProb, score, finished }, best first, and for each
 * step all candidates { tokens, logProb, score, fate }, best first. Compared by logProb / length^penalty.
 */
function beamSearch(model, source, maxLength, { bos, eos }, width, penalty) {
  const byScore = (a, b) => b.score - a.score; // sort() keeps the order of equal ones
  let alive = [{ tokens: [], logProb: 0, state: model.encode(source) }];
  let finished = [];
  const steps = [];
  for (let length = 1; length <= maxLength && alive.length; length++) {
    const candidates = alive.flatMap(({ tokens, logProb, state }) => {
      const [logits] = model.decode([tokens.length ? tokens[tokens.length - 1] : bos], state);
      const more = logSoftmax(logits);
      return firstOf(more, 2 * width).map((token) => ({ tokens: [...tokens, token], state,
        logProb: logProb + more[token], score: (logProb + more[token]) / length ** penalty }));
    }).sort((a, b) => b.logProb - a.logProb).slice(0, 2 * width);
    const ended = (candidate) => candidate.tokens[length - 1] === eos;
    finished = [...finished, ...candidates.filter((one, rank) => ended(one) && rank < width)]
      .sort(byScore).slice(0, width);
    const kept = candidates.filter((one) => !ended(one)).slice(0, width);
    const reach = [length + 1, maxLength].map((end) => kept[0].logProb / end ** penalty);
    const decided = finished.length === width && Math.max(...reach) <= finished[width - 1].score;
    alive = decided ? [] : kept.map((one) => ({ ...one, state: copyOf(one.state) }));
    steps.push(candidates.map(({ state, ...one }) => ({ ...one, fate: finished.some((done) =>
      done.tokens === one.tokens) ? "finished" : !decided && kept.some((going) =>
      going.tokens === one.tokens) ? "kept" : "pruned" })));
  }
  const found = [...finished, ...alive].sort(byScore).slice(0, width).map(({ state, ...one }) =>
    ({ ...one, finished: one.tokens[one.tokens.length - 1] === eos }));
  return { found, steps };
}
