"""Noise that Python and the page in `web/` draw alike."""

import base64
import json
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from mobilediff.ondevice.noise import MAX_SEED, normal_noise, normal_quantile, philox

FIXTURE = json.loads((Path(__file__).parents[3] / "web/tests/fixtures/noise.json").read_text(encoding="utf-8"))
ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_integers_that_random123_publishes(counter, key, expected):
    assert philox(np.array([counter], dtype=np.uint32), key).tolist() == [list(expected)]


@pytest.mark.parametrize("seed", FIXTURE["seeds"])
def test_noise_is_that_of_the_page(seed):
    expected = np.frombuffer(base64.b64decode(FIXTURE["seeds"][seed]), dtype=np.float32)
    np.testing.assert_array_equal(normal_noise(int(seed), (2, 511)), expected.reshape(2, 511))


def test_quantiles_are_those_of_the_page():
    uniform, expected = np.array(FIXTURE["quantiles"]).T
    np.testing.assert_array_equal(normal_quantile(uniform), expected)


def test_quantiles_are_those_of_the_normal_distribution():
    uniform = np.concatenate([2.0 ** -np.arange(1, 34), 1 - 2.0 ** -np.arange(2, 34)])
    expected = [NormalDist().inv_cdf(value) for value in uniform]
    np.testing.assert_allclose(normal_quantile(uniform), expected, rtol=1e-14, atol=1e-15)


def test_a_longer_noise_begins_with_the_shorter_one():
    np.testing.assert_array_equal(normal_noise(3, (10,)), normal_noise(3, (13,))[:10])


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}; accepted is 0 to {MAX_SEED}"):
        normal_noise(seed, (4,))
