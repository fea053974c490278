"use strict";

// The trained Transformer once more, in plain JavaScript: lessons 1 to 5 without PyTorch.
//
// A sequence is an array of vectors, one for each token. T is the number of tokens that look, S that of the
// tokens that are looked at. A matrix is { rows, columns, numbers }, row after row, as in PyTorch.

// ------------------------------------------------------------------ vectors

/** The product of two vectors, of their numbers `from` to before `end`. */
function dot(a, b, from, end) {
  let sum = 0;
  for (let i = from; i < end; i++) sum += a[i] * b[i];
  return sum;
}

const add = (a, b) => a.map((number, i) => number + b[i]);
const addAll = (x, y) => x.map((vector, t) => add(vector, y[t]));

/** W·v (+ b) for every vector v of x. */
function linear(x, weight, bias) {
  const { rows, columns, numbers } = weight;
  return x.map((vector) => {
    const out = new Float32Array(rows);
    for (let row = 0; row < rows; row++) {
      let sum = bias ? bias.numbers[row] : 0;
      for (let i = 0, at = row * columns; i < columns; i++, at++) sum += numbers[at] * vector[i];
      out[row] = sum;
    }
    return out;
  });
}

/** e^(z − largest z), divided by their sum; what is −∞ gets 0. */
function softmax(scores) {
  const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(scores, (score) => Math.exp(score - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** The error function: 2/√π · e^(−x²) · (x + 2x³/3 + 4x⁵/15 + …), whose terms all have one sign. */
function erf(x) {
  if (Math.abs(x) > 5) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-10 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

const ACTIVATIONS = { gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)), relu: (x) => Math.max(0, x) };

/** Every token's numbers get mean 0 and variance 1, then gain and bias. */
function layerNorm(x, gain, bias, eps = 1e-5) {
  return x.map((vector) => {
    const mean = vector.reduce((a, b) => a + b) / vector.length;
    const variance = vector.reduce((sum, number) => sum + (number - mean) ** 2, 0) / vector.length;
    return vector.map((number, i) => (gain.numbers[i] * (number - mean)) / Math.sqrt(variance + eps)
      + bias.numbers[i]);
  });
}

// ------------------------------------------------------------------ positions

/** The angle of pair i of `width` numbers at a position. */
const angle = (position, i, width) => position * 10000 ** ((-2 * i) / width);

/** Sine and cosine of the position, side by side for every frequency. */
function waves(position, width) {
  return Float32Array.from({ length: width }, (_, i) => i % 2
    ? Math.cos(angle(position, (i - 1) / 2, width)) : Math.sin(angle(position, i / 2, width)));
}

/** Each pair of numbers of each head, turned by position · frequency. */
function rotate(vector, position, headWidth) {
  const turned = new Float32Array(vector.length);
  for (let at = 0; at < vector.length; at += 2) {
    const turn = angle(position, (at % headWidth) / 2, headWidth);
    const [cos, sin] = [Math.fround(Math.cos(turn)), Math.fround(Math.sin(turn))];
    turned[at] = vector[at] * cos - vector[at + 1] * sin;
    turned[at + 1] = vector[at] * sin + vector[at + 1] * cos;
  }
  return turned;
}

// ------------------------------------------------------------------ the model

class Transformer {
  /** config as in lesson 5; Error for sizes or weights that are not its own. */
  constructor(config, weights) {
    const known = { activation: Object.keys(ACTIVATIONS), norm: ["pre", "post"],
      positions: ["sinusoidal", "learned", "rotary", "none"] };
    for (const [name, values] of Object.entries(known)) {
      if (!values.includes(config[name])) throw new Error(`${name} ${config[name]} is unknown here`);
    }
    this.config = config;
    this.weights = weights;
    this.computed = 0; // tokens that went through the decoder so far
  }

  /** The matrix of this name; Error if the model has none of this shape. */
  matrix(name, rows, columns) {
    const found = this.weights[name];
    if (!found) throw new Error(`there is no ${name}`);
    if (found.rows !== rows || found.columns !== columns) {
      throw new Error(`${name} is ${found.rows} × ${found.columns}, not ${rows} × ${columns}`);
    }
    return found;
  }

  linear(x, name, rows, columns) {
    return linear(x, this.matrix(`${name}.weight`, rows, columns), this.matrix(`${name}.bias`, 1, rows));
  }
  norm(x, name) {
    const width = this.config.d_model;
    return layerNorm(x, this.matrix(`${name}.gain`, 1, width), this.matrix(`${name}.bias`, 1, width));
  }

  /** Ids to vectors, the first at position `start`. */
  embed(tokens, start) {
    const { d_model: width, vocab_size: vocabulary, max_len: longest, positions } = this.config;
    if (start + tokens.length > longest) throw new Error(`position ${longest} is past the last`);
    const rowOf = (matrix, row) => matrix.numbers.subarray(row * width, (row + 1) * width);
    const table = this.matrix("embedding.weight", vocabulary, width);
    return tokens.map((token, t) => {
      const vector = rowOf(table, token).map((number) => number * Math.sqrt(width));
      if (positions === "sinusoidal") return add(vector, waves(start + t, width));
      if (positions !== "learned") return vector;
      return add(vector, rowOf(this.matrix("positions.table", longest, width), start + t));
    });
  }

  /**
   * Multi-head attention of x (T vectors) to `to` (S vectors), behind what the cache has kept already.
   *
   * cache: { keys, values, maps }, of which maps[head] gets a row of weights for each token of x.
   */
  attention(name, x, to, cache, { causal, rotary }) {
    const { d_model: width, n_heads: heads } = this.config;
    const size = width / heads;
    const start = cache.keys.length; // position of the first new key, and in self-attention of x[0]
    const turned = (x) => (rotary ? x.map((vector, t) => rotate(vector, start + t, size)) : x);
    const queries = turned(this.linear(x, `${name}.project_query`, width, width));
    cache.keys.push(...turned(this.linear(to, `${name}.project_key`, width, width)));
    cache.values.push(...this.linear(to, `${name}.project_value`, width, width));
    const mixed = queries.map((query, t) => {
      const seen = causal ? start + t + 1 : cache.keys.length;
      const out = new Float32Array(width);
      for (let head = 0; head < heads; head++) {
        const [from, end] = [head * size, (head + 1) * size];
        const scores = cache.keys.slice(0, seen).map((key) => dot(query, key, from, end) / Math.sqrt(size));
        const weights = softmax(scores); // (S): how much this token looks at each key
        weights.forEach((weight, s) => {
          for (let i = from; i < end; i++) out[i] += weight * cache.values[s][i];
        });
        cache.maps[head].push(weights);
      }
      return out;
    });
    return this.linear(mixed, `${name}.project_output`, width, width);
  }

  feedForward(name, x) {
    const { d_model: width, d_ff: wide, activation } = this.config;
    const hidden = this.linear(x, `${name}.expand`, wide, width)
      .map((vector) => vector.map(ACTIVATIONS[activation]));
    return this.linear(hidden, `${name}.contract`, width, wide);
  }

  /** The path around a layer: x + layer(norm(x)), or with post-norm norm(x + layer(x)). */
  around(name, x, layer) {
    const norm = (vectors) => this.norm(vectors, `${name}.norm`);
    return this.config.norm === "pre" ? addAll(x, layer(norm(x))) : norm(addAll(x, layer(x)));
  }

  /** What an attention has met so far: nothing. */
  emptyCache() {
    return { keys: [], values: [], maps: Array.from({ length: this.config.n_heads }, () => []) };
  }

  /** Ids of the source → { memory, self, cross }: all that decode() needs, and the encoder's weights. */
  encode(source) {
    const rotary = this.config.positions === "rotary";
    const blocks = [...Array(this.config.n_layers).keys()]; // 0, 1, …
    const encoder = blocks.map(() => this.emptyCache());
    let x = this.embed(source, 0);
    for (const block of blocks) {
      const name = `encoder.blocks.${block}`;
      x = this.around(`${name}.around_attention`, x, (h) => this.attention(
        `${name}.self_attention`, h, h, encoder[block], { causal: false, rotary }));
      x = this.around(`${name}.around_feed_forward`, x, (h) => this.feedForward(`${name}.feed_forward`, h));
    }
    if (this.config.norm === "pre") x = this.norm(x, "encoder.norm");
    const [self, cross] = [1, 2].map(() => blocks.map(() => this.emptyCache()));
    return { memory: x, encoder, self, cross };
  }

  /**
   * Ids of the next tokens (all at once, or one by one) → for each the logits of the token behind it.
   *
   * `state` comes from encode() and remembers keys and values of all tokens before these.
   */
  decode(tokens, state) {
    const rotary = this.config.positions === "rotary";
    this.computed += tokens.length;
    let x = this.embed(tokens, state.self[0].keys.length);
    state.self.forEach((cache, block) => {
      const name = `decoder.blocks.${block}`;
      const cross = state.cross[block];
      const unseen = cross.keys.length ? [] : state.memory; // its keys and values are computed once
      x = this.around(`${name}.around_self`, x, (h) => this.attention(
        `${name}.self_attention`, h, h, cache, { causal: true, rotary }));
      x = this.around(`${name}.around_cross`, x, (h) => this.attention(
        `${name}.cross_attention`, h, unseen, cross, { causal: false, rotary: false }));
      x = this.around(`${name}.around_feed_forward`, x, (h) => this.feedForward(`${name}.feed_forward`, h));
    });
    if (this.config.norm === "pre") x = this.norm(x, "decoder.norm");
    return linear(x, this.matrix("embedding.weight", this.config.vocab_size, this.config.d_model));
  }
}
