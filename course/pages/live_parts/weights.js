"use strict";

// The weights, as they are in the page: little-endian bytes in base64.
//
// A matrix is { rows, columns, numbers }, row after row, as in PyTorch.

/** 16 bits as a number: 1 for the sign, 5 for the exponent, 10 behind the point. */
function fromHalf(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, (bits & 1023) / 1024];
  return sign * (exponent ? POWERS[exponent] * (1 + fraction) : POWERS[1] * fraction);
}

const POWERS = Array.from({ length: 31 }, (_, exponent) => 2 ** (exponent - 15));

/**
 * name → matrix; shapes: name → [rows, columns] or [columns].
 *
 * With 16 bits every number is a float16. With 8, a matrix has the scale of each row as a float16, then a
 * whole number from −127 to 127 for each weight, which is this number times the scale; a vector has float16s.
 */
function readWeights(base64, shapes, bits = 16) {
  const text = atob(base64);
  let place = 0;
  const byte = () => text.charCodeAt(place++);
  const halves = (count) => Float32Array.from({ length: count }, () => fromHalf(byte() | (byte() << 8)));
  const matrix = ([rows, columns]) => {
    const scales = halves(rows);
    return Float32Array.from({ length: rows * columns }, (_, i) =>
      scales[Math.floor(i / columns)] * ((byte() << 24) >> 24)); // the highest bit is the sign
  };
  return Object.fromEntries(Object.entries(shapes).map(([name, shape]) => {
    const numbers = bits === 8 && shape.length === 2 ? matrix(shape)
      : halves(shape.reduce((product, size) => product * size, 1));
    const columns = shape[shape.length - 1] ?? 1;
    return [name, { rows: numbers.length / columns, columns, numbers }];
  }));
}
