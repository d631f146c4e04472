"""Pictures and masks in all forms, and what is refused."""

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import to_pil_image

from mobilediff.downstream.inputs import check_strength, read_images, read_masks
from tests.mobilediff.downstream.pictures import LEFT, SIZE, pictures

BATCH = pictures(2)
ARRAYS = BATCH.permute(0, 2, 3, 1).numpy()
WHOLE = SIZE, SIZE


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (BATCH, BATCH),
        (BATCH[0], BATCH[:1]),
        (ARRAYS, BATCH),
        (ARRAYS[1], BATCH[1:]),
        (to_pil_image(BATCH[0]), BATCH[:1]),
        ([to_pil_image(one) for one in BATCH], BATCH),
    ],
)
def test_images_of_all_forms_are_the_same(image, expected):
    torch.testing.assert_close(read_images(image, WHOLE), 2 * expected - 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "mask",
    [LEFT, LEFT[0], LEFT[0].numpy(), LEFT[0, 0].numpy(), to_pil_image(LEFT[0]), to_pil_image(LEFT[0]).convert("1")],
)
def test_masks_of_all_forms_are_the_same(mask):
    assert torch.equal(read_masks(mask, WHOLE), LEFT)


def test_a_grey_mask_is_cut_at_one_half():
    assert torch.equal(read_masks(LEFT * 0.5, WHOLE), LEFT)
    assert torch.equal(read_masks(0.49 + 0.51 * LEFT, WHOLE), LEFT)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "image is None, accepted"),
        ("cat.png", "image is 'cat.png', accepted"),
        ([], r"image is \[\], accepted"),
        ([BATCH[0]], "image holds a Tensor, accepted: PIL images"),
        (to_pil_image(BATCH[0]).convert("L"), "PIL image of mode L, accepted: a PIL image of mode RGB"),
        (to_pil_image(BATCH[0]).convert("RGBA"), "PIL image of mode RGBA, accepted"),
        (BATCH[:, :1], r"image is of shape \(2, 1, 32, 32\), accepted"),
        (ARRAYS[..., 0], r"image is of shape \(2, 32, 32\), accepted"),
        ((ARRAYS * 255).astype(np.uint8), "image holds uint8, accepted"),
        (ARRAYS.astype(object), "image holds object, accepted"),
        (ARRAYS.astype(complex), "image holds complex128, accepted"),
        (BATCH * 2 - 1, "image holds values outside 0 to 1"),
        (BATCH / 0, "image holds values outside 0 to 1"),
        (BATCH[..., :31], "image is 32 x 31 pixels, accepted: 32 x 32 pixels"),
        ([to_pil_image(BATCH[0]), to_pil_image(BATCH[0, :, :16])], r"image holds images of \(32, 16\) and \(32, 32\)"),
    ],
)
def test_bad_images_are_named(image, message):
    with pytest.raises(ValueError, match=message):
        read_images(image, WHOLE)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (LEFT[..., :16, :16], "mask_image is 16 x 16 pixels, but the image is 32 x 32 pixels"),
        (LEFT * 0.4, "mask_image is empty"),
        (torch.ones_like(LEFT), "mask_image is full"),
        (torch.cat([LEFT, 0 * LEFT]), "mask_image is empty"),
        (LEFT.expand(1, 3, SIZE, SIZE), r"mask_image is of shape \(1, 3, 32, 32\), accepted"),
        (to_pil_image(BATCH[0]), "mask_image is a PIL image of mode RGB, accepted: a PIL image of mode L or 1"),
        (LEFT.bool(), "mask_image holds torch.bool, accepted"),
    ],
)
def test_bad_masks_are_named(mask, message):
    with pytest.raises(ValueError, match=message):
        read_masks(mask, WHOLE)


@pytest.mark.parametrize("strength", [0, -0.1, 1.01, float("nan"), float("inf"), True, "0.5", None])
def test_strengths_out_of_range_are_refused(strength):
    with pytest.raises(ValueError, match=r"strength is .*, accepted: numbers above 0, up to 1"):
        check_strength(strength)
