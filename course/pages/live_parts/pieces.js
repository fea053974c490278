"use strict";

// Text to the ids of its pieces and back: lesson 7's byte-pair encoding.

// What is a space, a letter or a digit differs between Python and JavaScript, so it is spelled out.
const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const DIGIT = "\\p{Decimal_Number}";
const LETTER = "\\p{L}\\p{Letter_Number}\\p{Other_Number}"; // all that \w has, without digits and _
const WORD = new RegExp(` ?[${LETTER}]+['’]?| ?[${DIGIT}]+| ?[^${LETTER}${DIGIT}_${SPACE}]+| ?_+|`
  + `[${SPACE}]+?(?=[${SPACE}][^${SPACE}])|[${SPACE}]+|.`, "gsu");
const FIRST_BYTE = 3; // the ids before: PAD, BOS, EOS
const FIRST_CHARACTER = FIRST_BYTE + 256;

/** The text cut into words that keep the space in front of them. */
const splitWords = (text) => text.match(WORD) ?? [];

const bytesOf = (text) => new TextEncoder().encode(text);
const textOf = (bytes) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));

class Pieces {
  /** As lesson 7's state() has them: the characters, and the pairs of ids that are merged, in order. */
  constructor({ alphabet, merges }) {
    const characters = [...alphabet];
    this.texts = [...Array(FIRST_CHARACTER).fill(""), ...characters]; // of the ids from FIRST_CHARACTER on
    this.idOf = new Map(characters.map((character, place) => [character, FIRST_CHARACTER + place]));
    const made = new Map(this.idOf);
    this.mergeOf = new Map(); // "left right" → { rank, id }
    merges.forEach(([left, right], rank) => {
      const text = this.texts[left] + this.texts[right];
      if (!made.has(text)) made.set(text, this.texts.push(text) - 1);
      this.mergeOf.set(`${left} ${right}`, { rank, id: made.get(text) });
    });
  }

  encode(text) {
    return splitWords(text).flatMap((word) => this.encodeWord(word));
  }

  /** Join the neighbours whose merge was learned first, everywhere, and repeat. */
  encodeWord(word) {
    let ids = [...word].flatMap((character) => this.idOf.get(character)
      ?? [...bytesOf(character)].map((byte) => FIRST_BYTE + byte));
    for (;;) {
      const merges = ids.map((id, place) => this.mergeOf.get(`${id} ${ids[place + 1]}`));
      const first = merges.reduce((best, merge) => (merge && !(best?.rank <= merge.rank) ? merge : best), undefined);
      if (!first) return ids;
      const joined = [];
      for (let place = 0; place < ids.length; place++) {
        if (merges[place] === first) {
          joined.push(first.id);
          place += 1;
        } else {
          joined.push(ids[place]);
        }
      }
      ids = joined;
    }
  }

  /** The bytes of a piece; none for PAD, BOS and EOS. */
  bytes(id) {
    if (id >= FIRST_CHARACTER) return [...bytesOf(this.texts[id])];
    return id < FIRST_BYTE ? [] : [id - FIRST_BYTE];
  }

  /** The text of the ids; bytes that are not UTF-8 become �. */
  decode(ids) {
    return textOf(ids.flatMap((id) => this.bytes(id)));
  }

  /** The words of the ids' text: [{ text, pieces }], where `pieces` are the places of its ids. */
  words(ids) {
    const found = splitWords(this.decode(ids)).map((text) => ({ text, pieces: [] }));
    const ends = [];
    for (const { text } of found) ends.push((ends[ends.length - 1] ?? 0) + bytesOf(text).length);
    let read = 0;
    ids.forEach((id, place) => {
      read += this.bytes(id).length;
      const word = ends.findIndex((end) => read <= end);
      if (this.bytes(id).length) found[word < 0 ? found.length - 1 : word].pieces.push(place);
    });
    return found.filter(({ pieces }) => pieces.length);
  }
}
