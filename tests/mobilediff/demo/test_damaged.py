"""Damage by degrees: each kind moves pictures away, none moves nothing, and a distance is found."""

import pytest
import torch

from eval.samples.damage import blurred, compressed, noised
from mobilediff.demo.service import damaged
from mobilediff.demo.service.damaged import COLUMNS, Damage, Originals, check_damage, find_damage, redraw
from mobilediff.demo.service.models import Models
from tests.mobilediff.demo.steps import result

SOURCE = "Samples of student-1step-pruned"


@pytest.fixture(scope="module")
def originals(checkpoints):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(damaged, "COUNT", 400)
        patch.delenv("MOBILEDIFF_DATA", raising=False)
        kept = Originals(Models(checkpoints))
        result(kept.of(SOURCE))
        yield kept


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Smooth pictures."""
    small = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    return torch.nn.functional.interpolate(small, size=32, mode="bicubic").clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(
    "damage",
    [lambda images, strength: noised(images, strength / 10), lambda images, strength: blurred(images, 2 * strength),
     lambda images, strength: compressed(images, round(100 - 99 * strength))],
)  # fmt: skip
def test_more_damage_changes_more(images, damage):
    little, much = (damage(images, strength) for strength in (0.3, 1.0))
    assert little.dtype == much.dtype == torch.uint8 and little.shape == images.shape
    changes = [(one.float() - images.float()).abs().mean() for one in (little, much)]
    assert 0 < changes[0] < changes[1]
    assert (damage(images, 0.3) == little).all()


def test_no_damage_changes_nothing_and_kinds_add_up(images):
    assert Damage().apply(images) is images
    damage = Damage(blur=1.0, noise=0.1, quality=50)
    assert (damage.apply(images) == compressed(noised(blurred(images, 1.0), 0.1), 50)).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((None, 0, 100, 0), "The blur is None; accepted is a number from 0 to 2.0"),
        ((float("nan"), 0, 100, 0), "The blur is nan"),
        ((2.1, 0, 100, 0), "The blur is 2.1"),
        ((True, 0, 100, 0), "The blur is True"),
        ((0, "0.1", 100, 0), "The noise is '0.1'"),
        ((0, -0.1, 100, 0), "The noise is -0.1"),
        ((0, float("inf"), 100, 0), "The noise is inf"),
        ((0, 0, 0, 0), "The JPEG quality is 0; accepted is a whole number from 1 to 100"),
        ((0, 0, 50.5, 0), "The JPEG quality is 50.5"),
        ((0, 0, 100, 8), "The number of dropped classes is 8"),
        ((0, 0, 100, [1]), r"The number of dropped classes is \[1\]"),
    ],
)
def test_values_are_checked(values, message):
    with pytest.raises(ValueError, match=message):
        check_damage(*values)


@pytest.mark.slow
def test_undamaged_pictures_lie_on_themselves_and_damaged_ones_farther(originals):
    none = result(redraw(originals, SOURCE, Damage()))
    rows = {name: values for name, *values in none.rows}
    assert all(len(row) == len(COLUMNS) for row in none.rows) and none.from_undamaged == pytest.approx(0, abs=1e-3)
    for _, (there, undamaged, *_) in rows.items():
        assert there == undamaged
    assert float(rows["Fréchet distance to the training images"][3]) < float(
        rows["Fréchet distance to the training images"][2]
    )
    distances = [result(redraw(originals, SOURCE, Damage(blur=blur))).from_undamaged for blur in (0.5, 1.0, 2.0)]
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.slow
def test_dropped_classes_are_left_out_on_both_sides(originals):
    dropped = result(redraw(originals, SOURCE, Damage(dropped=3)))
    assert len(dropped.damaged) == len(dropped.undamaged) == 280
    assert (dropped.damaged == dropped.undamaged).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", damaged.KINDS)
def test_a_distance_is_found(originals, kind):
    found = result(find_damage(originals, SOURCE, kind, 1))
    assert sum(getattr(found, name) != getattr(Damage(), name) for name in ("blur", "noise", "quality")) == 1
    there = result(redraw(originals, SOURCE, found)).from_undamaged
    assert there >= 0.99 or found in (damaged._of_strength(kind, 1.0),)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "kind", "target", "message"),
    [
        (
            "Samples of nobody",
            "Blur",
            1,
            "There are no pictures 'Samples of nobody'; accepted are Samples of",
        ),
        (None, "Blur", 1, "There are no pictures None"),
        (["x"], "Blur", 1, "There are no pictures"),
        ("CIFAR-10 test images", "Blur", 1, "There are no pictures 'CIFAR-10 test images'"),
        (SOURCE, "Rain", 1, "The kind of damage is 'Rain'; accepted are Blur, Noise, JPEG"),
        (SOURCE, "Blur", 2, "The distance is 2; accepted are 1, 4, 30"),
        (SOURCE, "Blur", True, "The distance is True"),
        (SOURCE, "Blur", None, "The distance is None"),
    ],
)
def test_what_is_sought_is_checked(originals, source, kind, target, message):
    with pytest.raises(ValueError, match=message):
        result(find_damage(originals, source, kind, target))


@pytest.mark.slow
def test_samples_that_were_drawn_stay_when_a_visitor_leaves(checkpoints, monkeypatch):
    monkeypatch.setattr(damaged, "COUNT", 60)
    monkeypatch.delenv("MOBILEDIFF_DATA", raising=False)
    originals = Originals(Models(checkpoints))
    assert next(originals.of(SOURCE)).startswith("Drew 20 of 60")
    assert next(originals.of(SOURCE)).startswith("Drew 40 of 60")
    assert result(originals.of(SOURCE)).images.shape == (60, 3, 32, 32)
