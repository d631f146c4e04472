"""The files that the page's own tests and self-test compare with are what Python computes now."""

import base64
import json

import numpy as np
import pytest

from tests.web.fixtures import MODELS, WEB, noise, self_test_of, token_ids


def read(path: str) -> dict:
    return json.loads((WEB / path).read_text(encoding="utf-8"))


def test_token_ids_are_the_tokenizers():
    found = token_ids()
    assert len(found) == 500
    assert read("tests/fixtures/tokens.json") == found


def test_noise_is_drawn_alike():
    assert read("tests/fixtures/noise.json") == json.loads(json.dumps(noise()))


@pytest.mark.parametrize("model", MODELS)
def test_the_picture_of_the_self_test_is_pytorchs(model):
    stored, drawn = read(f"self-test/{model}.json"), self_test_of(model)
    pixels, expected = (
        np.frombuffer(base64.b64decode(one.pop("pixels")), dtype=np.uint8).astype(int) for one in (stored, drawn)
    )
    assert stored == drawn
    assert np.abs(pixels - expected).max() <= 1
