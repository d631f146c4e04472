/**
 * Draws standard normal noise that is equal, bit by bit, to that of `mobilediff/ondevice/noise.py`: Philox 4x32-10 and
 * AS 241, with operations that IEEE 754 rounds in one way. The sources are named there.
 */

export const MAX_SEED = 2 ** 32 - 1;

const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57] as const;
const KEY_STEPS = [0x9e3779b9, 0xbb67ae85] as const;
const ROUNDS = 10;

const LN2 = 0.6931471805599453;
const SQRT_HALF = 0.7071067811865476;
const LOG_TERMS = 12;

type Polynomial = readonly number[];
type Four = readonly [number, number, number, number];

// Coefficients of AS 241's PPND16, the highest power first: numerator and denominator of each of its three ranges.
const CENTRE: readonly [Polynomial, Polynomial] = [
  [
    2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457, 13731.693765509461125,
    1971.5909503065514427, 133.14166789178437745, 3.387132872796366608,
  ],
  [
    5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867, 5394.1960214247511077,
    687.1870074920579083, 42.313330701600911252, 1,
  ],
];
const MIDDLE: readonly [Polynomial, Polynomial] = [
  [
    7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
    3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734,
  ],
  [
    1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
    0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1,
  ],
];
const TAIL: readonly [Polynomial, Polynomial] = [
  [
    2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
    0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772,
  ],
  [
    2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
    0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1,
  ],
];

/** Multiplies two 32-bit integers: the upper and the lower half of the product. */
function multiply(a: number, b: number): [number, number] {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carried = aLow * bHigh + (middle % 0x10000);
  return [aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carried / 0x10000), Math.imul(a, b) >>> 0];
}

/** Generates four random 32-bit integers of a counter and a key by Philox 4x32-10. */
export function philox(counter: Four, key: readonly [number, number]): Four {
  let [a, b, c, d] = counter;
  let [first, second] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const [leftHigh, leftLow] = multiply(a, MULTIPLIERS[0]);
    const [rightHigh, rightLow] = multiply(c, MULTIPLIERS[1]);
    [a, b, c, d] = [(rightHigh ^ b ^ first) >>> 0, rightLow, (leftHigh ^ d ^ second) >>> 0, leftLow];
    first = (first + KEY_STEPS[0]) >>> 0;
    second = (second + KEY_STEPS[1]) >>> 0;
  }
  return [a, b, c, d];
}

/** Computes a natural logarithm in (0, 1): e ln 2 + 2 artanh((m - 1) / (m + 1)) for x = m 2^e, m near 1. */
function log(value: number): number {
  let [mantissa, exponent] = [value, 0];
  while (mantissa < SQRT_HALF) {
    mantissa *= 2;
    exponent -= 1;
  }
  const ratio = (mantissa - 1) / (mantissa + 1);
  const square = ratio * ratio;
  let series = 0;
  for (let term = LOG_TERMS; term >= 0; term--) series = series * square + 1 / (2 * term + 1);
  return exponent * LN2 + 2 * ratio * series;
}

function polynomial(coefficients: Polynomial, value: number): number {
  return coefficients.reduce((sum, coefficient) => sum * value + coefficient, 0);
}

function rational([numerator, denominator]: readonly [Polynomial, Polynomial], value: number): number {
  return polynomial(numerator, value) / polynomial(denominator, value);
}

/** Inverts the standard normal distribution function by AS 241, for a value within (0, 1). */
export function normalQuantile(uniform: number): number {
  const offset = uniform - 0.5;
  if (Math.abs(offset) <= 0.425) return offset * rational(CENTRE, 0.180625 - offset * offset);
  const radius = Math.sqrt(-log(offset < 0 ? uniform : 1 - uniform));
  const outer = radius <= 5 ? rational(MIDDLE, radius - 1.6) : rational(TAIL, radius - 5);
  return offset < 0 ? -outer : outer;
}

/** Draws `count` standard normal values of a seed, 0 to `MAX_SEED`. */
export function normalNoise(seed: number, count: number): Float32Array {
  const noise = new Float32Array(count);
  for (let index = 0; index < count; index += 4) {
    const integers = philox([index / 4, 0, 0, 0], [seed, 0]);
    for (let lane = 0; lane < 4 && index + lane < count; lane++) {
      noise[index + lane] = normalQuantile((integers[lane as 0] + 0.5) * 2 ** -32);
    }
  }
  return noise;
}
