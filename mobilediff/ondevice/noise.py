"""Draw standard normal noise that is equal, bit by bit, in Python and in a browser.

Uniform 32-bit integers come from the counter-based generator Philox 4x32-10 (Salmon et al., "Parallel random numbers:
as easy as 1, 2, 3", 2011), value i of a seed from counter i // 4. Each becomes a normal value by the inverse of the
normal distribution function, algorithm AS 241 (Wichura, 1988), in double precision. Nothing but sums, products,
quotients and square roots is used, which IEEE 754 rounds in one way everywhere; a library's logarithm may differ in
the last bit, so the logarithm is a series here. `web/src/noise.ts` has the same operations in the same order.
"""

import numpy as np

MAX_SEED = 2**32 - 1

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_LOG_TERMS = 12

# Coefficients of AS 241's PPND16, the highest power first: numerator and denominator of each of its three ranges.
_CENTRE = (
    (
        2509.0809287301226727,
        33430.575583588128105,
        67265.770927008700853,
        45921.953931549871457,
        13731.693765509461125,
        1971.5909503065514427,
        133.14166789178437745,
        3.387132872796366608,
    ),
    (
        5226.495278852545925,
        28729.085735721942674,
        39307.89580009271061,
        21213.794301586595867,
        5394.1960214247511077,
        687.1870074920579083,
        42.313330701600911252,
        1.0,
    ),
)
_MIDDLE = (
    (
        7.7454501427834140764e-4,
        0.0227238449892691845833,
        0.24178072517745061177,
        1.27045825245236838258,
        3.64784832476320460504,
        5.7694972214606914055,
        4.6303378461565452959,
        1.42343711074968357734,
    ),
    (
        1.05075007164441684324e-9,
        5.475938084995344946e-4,
        0.0151986665636164571966,
        0.14810397642748007459,
        0.68976733498510000455,
        1.6763848301838038494,
        2.05319162663775882187,
        1.0,
    ),
)
_TAIL = (
    (
        2.01033439929228813265e-7,
        2.71155556874348757815e-5,
        0.0012426609473880784386,
        0.026532189526576123093,
        0.29656057182850489123,
        1.7848265399172913358,
        5.4637849111641143699,
        6.6579046435011037772,
    ),
    (
        2.04426310338993978564e-15,
        1.4215117583164458887e-7,
        1.8463183175100546818e-5,
        7.868691311456132591e-4,
        0.0148753612908506148525,
        0.13692988092273580531,
        0.59983220655588793769,
        1.0,
    ),
)


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Generate four random 32-bit integers for each counter by Philox 4x32-10.

    Args:
        counter: uint32 [N, 4].
        key: two 32-bit integers.

    Returns:
        uint32 [N, 4].
    """
    a, b, c, d = counter.astype(np.uint64).T
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    keys = list(key)
    for _ in range(_ROUNDS):
        left, right = a * np.uint64(_MULTIPLIERS[0]), c * np.uint64(_MULTIPLIERS[1])
        a, b, c, d = (
            (right >> half) ^ b ^ np.uint64(keys[0]),
            right & low,
            (left >> half) ^ d ^ np.uint64(keys[1]),
            left & low,
        )
        keys = [(one + step) & 0xFFFFFFFF for one, step in zip(keys, _KEY_STEPS, strict=True)]
    return np.stack([a, b, c, d], axis=1).astype(np.uint32)


def _log(values: np.ndarray) -> np.ndarray:
    """Compute natural logarithms in (0, 1): e ln 2 + 2 artanh((m - 1) / (m + 1)) for x = m 2^e, m near 1."""
    mantissa, exponent = np.frexp(values)
    small = mantissa < _SQRT_HALF
    mantissa, exponent = np.where(small, mantissa * 2, mantissa), np.where(small, exponent - 1, exponent)
    ratio = (mantissa - 1) / (mantissa + 1)
    square = ratio * ratio
    series = np.zeros_like(ratio)
    for term in range(_LOG_TERMS, -1, -1):
        series = series * square + 1 / (2 * term + 1)
    return exponent * _LN2 + 2 * ratio * series


def _rational(coefficients: tuple[tuple[float, ...], tuple[float, ...]], value: np.ndarray) -> np.ndarray:
    """Evaluate the quotient of two polynomials by Horner's rule."""
    numerator, denominator = (np.zeros_like(value) for _ in coefficients)
    for above, below in zip(*coefficients, strict=True):
        numerator, denominator = numerator * value + above, denominator * value + below
    return numerator / denominator


def normal_quantile(uniform: np.ndarray) -> np.ndarray:
    """Invert the standard normal distribution function by AS 241, float64, for `uniform` within (0, 1)."""
    offset = uniform - 0.5
    central = np.abs(offset) <= 0.425
    radius = np.sqrt(-_log(np.where(offset < 0, uniform, 1 - uniform)))
    outer = np.where(radius <= 5, _rational(_MIDDLE, radius - 1.6), _rational(_TAIL, radius - 5))
    return np.where(
        central,
        offset * _rational(_CENTRE, 0.180625 - offset * offset),
        np.where(offset < 0, -outer, outer),
    )


def normal_noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draw standard normal noise of a seed, float32 of `shape`, its values in C order.

    Args:
        seed: 0 to `MAX_SEED`, the first half of Philox's key.

    Raises:
        ValueError: another seed.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}; accepted is 0 to {MAX_SEED}")
    count = int(np.prod(shape))
    counter = np.zeros((-(-count // 4), 4), dtype=np.uint32)
    counter[:, 0] = np.arange(len(counter))
    uniform = (philox(counter, (seed, 0)).reshape(-1)[:count] + 0.5) * 2.0**-32
    return normal_quantile(uniform).astype(np.float32).reshape(shape)
