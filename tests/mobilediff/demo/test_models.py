"""Models load beside visitors, and the app looks for garbage again once it is imported."""

import gc

import app
from eval.metrics.pauses import pausing
from mobilediff.demo.service.models import FAMILY, _place, load_model


def test_a_load_lets_visitors_by_before_the_picture_and_before_the_figures(models):
    pauses, loaded = [], models.get("student-1step")
    with pausing(lambda: pauses.append(None)):
        model = load_model(loaded.folder, models.device)
    assert len(pauses) == 2
    assert (model.name, model.sha256, model.macs) == (loaded.name, loaded.sha256, loaded.macs)


def test_garbage_is_looked_for_once_the_app_is_imported():
    assert app.__name__ == "app"
    assert gc.isenabled() and gc.get_freeze_count() > 100_000


def test_a_checkpoint_follows_the_one_that_it_is_named_after():
    names = ["another", "student-1step-64", "student-8step-bf16", *reversed(FAMILY)]
    assert sorted(names, key=_place) == [
        "student-1step-pruned",
        "student-1step",
        "student-1step-64",
        "student-8step",
        "student-8step-bf16",
        "student",
        "teacher",
        "another",
    ]
