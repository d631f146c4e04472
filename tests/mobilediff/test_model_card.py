"""The model card shows a folder's name as it is, whatever Markdown makes of its characters."""

import pytest
from diffusers import AutoencoderTiny

from mobilediff.model_card import RESULTS_START, markdown_text, model_card
from tests.tiny import tiny_pipeline


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a`b`", "a\\`b\\`"),
        ("${1}", "\\${1}"),
        (f"x{RESULTS_START}", "x\\<!-- results:start --\\>"),
        ("two\nlines | and a cell", "two lines \\| and a cell"),
        ("student-1step_v2.0", "student-1step_v2.0"),
    ],
)
def test_a_name_is_text_and_nothing_else(name, shown):
    assert markdown_text(name) == shown
    card = model_card(name, tiny_pipeline("student-1step"))
    assert f"# {shown}\n" in card and card.count(RESULTS_START) == 1


def test_the_size_of_images_is_that_of_the_decoder():
    pipeline, widths = tiny_pipeline("student-1step"), [8, 8, 8]
    assert "Images are 32 x 32 pixels." in model_card("a", pipeline)
    blocks = {"num_encoder_blocks": [0, 0, 1], "num_decoder_blocks": [1, 0, 0]}
    vae = AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths, **blocks)
    pipeline.register_modules(vae=vae)
    assert "Images are 64 x 64 pixels." in model_card("a", pipeline)
