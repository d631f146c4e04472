"""Inpainting, by networks that see masks and by others."""

import copy

import pytest
import torch
from diffusers import AutoencoderTiny, DiffusionPipeline
from torch.nn.functional import pad

from mobilediff.downstream.img2img import MobileDiffusionImg2ImgPipeline
from mobilediff.downstream.inpaint import MobileDiffusionInpaintPipeline, blended, filled
from mobilediff.images import to_bytes
from mobilediff.models.variants import variant
from mobilediff.pipeline import MobileDiffusionPipeline
from tests.generators import generator, generators
from tests.mobilediff.downstream.pictures import LEFT, SIZE, pictures
from tests.tiny import KINDS, tiny_pipeline

STEPS = {"student-8step": 8}
CENTRE = torch.zeros(1, 1, SIZE, SIZE)
CENTRE[..., 10:23, 9:20] = 1


def inpainter(kind: str = "student-1step", sees_masks: bool = False) -> MobileDiffusionInpaintPipeline:
    parts = tiny_pipeline(kind)
    unet = parts.unet
    if sees_masks:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            unet = variant(parts.unet, in_channels=9).eval()
    pipeline = MobileDiffusionInpaintPipeline.from_pipe(parts, unet=unet)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline, image=None, mask=CENTRE, prompt="a cat", **arguments) -> torch.Tensor:
    image = pictures(1) if image is None else image
    return pipeline(prompt, image, mask, output_type="pt", **{"generator": generator(0)} | arguments).images


def kept_bytes(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return to_bytes(2 * images - 1) * (mask == 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_kept_pixels_stay_and_the_others_change(kind, strength):
    image = pictures(1)
    result = draw(inpainter(kind), image, strength=strength, num_inference_steps=STEPS.get(kind, 4))
    assert torch.equal(kept_bytes(result, CENTRE), kept_bytes(image, CENTRE))
    assert ((result - image).abs() * CENTRE).sum() / CENTRE.sum() > 0.05


@pytest.mark.parametrize("sees_masks", [False, True])
def test_a_one_step_student_repaints_in_one_step(sees_masks):
    pipeline, image, seen = inpainter(sees_masks=sees_masks), pictures(1), []
    result = draw(pipeline, image, callback_on_step_end=lambda pipeline, i, t, tensors: seen.append(int(t)))
    assert seen == [749]
    assert torch.equal(kept_bytes(result, CENTRE), kept_bytes(image, CENTRE))
    hidden = torch.where(CENTRE == 1, pictures(1, 5), image)
    assert torch.equal(draw(pipeline, hidden), result)  # what lies under the mask is not seen
    for changed in (draw(pipeline, pictures(1, 5)), draw(pipeline, image, LEFT)):
        assert not torch.allclose(changed * CENTRE * LEFT, result * CENTRE * LEFT, atol=1e-3)


def test_a_widened_network_with_weights_of_0_draws_as_the_one_before():
    pipeline = inpainter()
    unet = variant(pipeline.unet, in_channels=9).eval()
    weights = pipeline.unet.state_dict()
    unet.load_state_dict(weights | {"conv_in.weight": pad(weights["conv_in.weight"], (0, 0, 0, 0, 0, 5))})
    wide = MobileDiffusionInpaintPipeline.from_pipe(pipeline, unet=unet)
    expected, drawn = (draw(one, generator=generator(0)) for one in (pipeline, wide))
    torch.testing.assert_close(drawn, expected)


def test_what_is_under_the_mask_is_seen_below_a_strength_of_1_alone():
    image = pictures(1)
    other = torch.where(CENTRE == 1, pictures(1, 5), image)
    for kind, steps in (("student-1step", 1), ("student-1step", 2), ("student", 4)):
        pipeline = inpainter(kind)
        for strength, seen in ((1.0, False), (0.5, True)):
            drawn = [draw(pipeline, one, strength=strength, num_inference_steps=steps) for one in (image, other)]
            assert torch.equal(*drawn) != seen


def test_holes_are_filled_from_their_surroundings():
    image = torch.zeros(1, 3, SIZE, SIZE)
    image[..., SIZE // 2 :] = 1
    inside = filled(torch.where(CENTRE == 1, torch.full_like(image, 9.0), image), CENTRE)
    assert torch.equal(inside * (CENTRE == 0), image * (CENTRE == 0))
    assert 0 <= inside.min() and inside.max() <= 1
    assert inside[0, 0, 16, 10] < 0.1 and inside[0, 0, 16, 18] > 0.9
    dot = torch.ones(1, 1, SIZE, SIZE)
    dot[..., 0, 0] = 0
    torch.testing.assert_close(filled(image + 0.25, dot), torch.full_like(image, 0.25))


def test_the_kept_part_is_noised_anew_between_steps():
    pipeline, image = inpainter(), pictures(1)
    steps = []
    draw(
        pipeline,
        image,
        LEFT,
        num_inference_steps=4,
        callback_on_step_end=lambda pipeline, index, t, tensors: steps.append(tensors["latents"].clone()),
    )
    noise = torch.randn(steps[0].shape, generator=generator(0))
    clean = pipeline._encode_images(filled(2 * image - 1, LEFT), noise)
    kept = [steps[i][..., 8:] for i in range(4)]
    for i, t in enumerate((749, 499, 249)):
        expected = pipeline.scheduler.add_noise(clean, noise, torch.tensor([t]))
        torch.testing.assert_close(kept[i], expected[..., 8:])
    torch.testing.assert_close(kept[3], clean[..., 8:])


def test_the_callers_callback_has_the_last_word():
    pipeline = inpainter()
    wanted = torch.randn(1, 4, 16, 16, generator=generator(3))
    result = pipeline(
        "a cat",
        pictures(1),
        LEFT,
        num_inference_steps=2,
        callback_on_step_end=lambda pipeline, index, t, tensors: {"latents": wanted},
        output_type="latent",
    ).images
    assert torch.equal(result, wanted)


def test_a_seam_is_drawn_to_the_kept_colours_on_the_repainted_side_alone():
    originals, drawn = torch.full((1, 3, SIZE, SIZE), 0.5), torch.full((1, 3, SIZE, SIZE), -0.1)
    row = blended(drawn, originals, LEFT)[0, 0, 16]
    assert torch.equal(row[16:], originals[0, 0, 16, 16:]) and torch.equal(row[:14], drawn[0, 0, 16, :14])
    assert -0.1 < row[14] < row[15] <= 0.5


def test_a_mask_for_each_image_and_one_for_all():
    pipeline, images, masks = inpainter(sees_masks=True), pictures(2), torch.cat([LEFT, CENTRE])
    prompts = ["a cat", "a ship"]
    together = draw(pipeline, images, masks, prompts, generator=generators(0, 1))
    alone = [draw(pipeline, images[i : i + 1], masks[i : i + 1], prompts[i], generator=generators(i)) for i in (0, 1)]
    torch.testing.assert_close(together, torch.cat(alone))
    one = draw(pipeline, images, LEFT, prompts, generator=generators(0, 1))
    torch.testing.assert_close(one[:1], alone[0])


def test_a_small_vae_encodes_too():
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    pipeline = MobileDiffusionInpaintPipeline.from_pipe(inpainter(sees_masks=True), vae=vae.eval())
    assert draw(pipeline).shape == (1, 3, SIZE, SIZE)
    expected = vae.encode(2 * pictures(1) - 1).latents
    torch.testing.assert_close(pipeline._encode_images(2 * pictures(1) - 1, expected), expected)


def test_a_call_in_a_callback_has_an_edit_of_its_own():
    pipeline, image = inpainter(), pictures(1)
    expected = draw(pipeline, image, num_inference_steps=2)

    def callback(outer, index, t, tensors):
        draw(outer, pictures(1, 7), LEFT, num_inference_steps=2)

    assert torch.equal(draw(pipeline, image, num_inference_steps=2, callback_on_step_end=callback), expected)
    assert pipeline._edit is None
    assert torch.equal(draw(copy.copy(pipeline), image, num_inference_steps=2), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "student", "num_inference_steps": 1}, "num_inference_steps is 1, which starts at pure noise"),
        ({"num_inference_steps": 2, "mask": torch.ones_like(LEFT)}, "mask_image is full"),
        ({"num_inference_steps": 2, "mask": LEFT[..., :16]}, "mask_image is 32 x 16 pixels, but the image is 32 x 32"),
        ({"num_inference_steps": 2, "mask": torch.cat([LEFT, LEFT])}, "mask_image holds 2, accepted: one"),
        ({"num_inference_steps": 2, "strength": 0}, "strength is 0, accepted"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(arguments, message, monkeypatch):
    arguments = dict(arguments)
    pipeline = inpainter(arguments.pop("kind", "student-1step"))
    monkeypatch.setattr(pipeline.vae, "encode", None)
    monkeypatch.setattr(pipeline, "encode_prompt", None)
    with pytest.raises(ValueError, match=message):
        draw(pipeline, **arguments)


@pytest.mark.parametrize("other", [MobileDiffusionPipeline, MobileDiffusionImg2ImgPipeline])
def test_other_pipelines_refuse_a_network_that_sees_masks(other, monkeypatch):
    pipeline = other.from_pipe(inpainter(sees_masks=True))
    monkeypatch.setattr(pipeline, "encode_prompt", None)
    given = {"image": pictures(1)} if other is MobileDiffusionImg2ImgPipeline else {}
    with pytest.raises(
        ValueError, match="takes 9 channels and returns 4: .*accepted is MobileDiffusionInpaintPipeline"
    ):
        pipeline("a cat", **given)


def test_the_folder_loads_without_the_package(tmp_path):
    pipeline, image = inpainter(sees_masks=True), pictures(1)
    pipeline.save_pretrained(tmp_path / "inpaint")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "inpaint", trust_remote_code=True)
    assert type(loaded).__module__.startswith("diffusers_modules.")
    for other in (loaded, MobileDiffusionInpaintPipeline.from_pretrained(tmp_path / "inpaint")):
        torch.testing.assert_close(draw(other, image), draw(pipeline, image))
