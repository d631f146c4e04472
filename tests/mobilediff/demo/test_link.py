"""A link restores every choice, or says which one it cannot."""

from urllib.parse import parse_qsl

import pytest

from mobilediff.demo.service.link import Choices, read_link
from mobilediff.demo.service.settings import OWN_SETTINGS, Settings

NAMES = ["student-1step", "student", "teacher"]


def read(address: str) -> Choices | None:
    return read_link(dict(parse_qsl(address, keep_blank_values=True)), NAMES)


def test_a_link_restores_every_choice():
    address = (
        "prompt=a+red+deer%21&seed=4294967295&count=8&models=teacher,student&few_steps=4&many_steps=50&guidance=2.5"
    )
    choices = Choices("a red deer!", 4294967295, 8, ["student", "teacher"], Settings(4, 50, 2.5))
    assert read(address) == choices
    assert read(address + "&__theme=dark&utm_source=x") == choices


def test_what_a_link_does_not_name_stays():
    assert read("seed=0&few_steps=own&guidance=") == Choices(None, 0, None, None, OWN_SETTINGS)
    assert read("guidance=0").settings == Settings(guidance=0.0)


@pytest.mark.parametrize("address", ["", "__theme=dark", "prompt=&seed="])
def test_an_address_without_choices_is_no_link(address):
    assert read(address) is None


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("prompt=" + "x" * 201, "prompt has 201 characters"),
        ("prompt=+", "prompt is empty"),
        ("seed=-1", "seed is -1"),
        ("seed=1.5", "seed is 1.5"),
        ("seed=nan", "seed is nan"),
        ("seed=<b>", "seed is '<b>'; accepted is a whole number"),
        ("count=9", "number of images is 9"),
        ("count=1e400", "number of images is inf"),
        ("models=teacher-xl", "no model 'teacher-xl'; accepted are student-1step, student, teacher"),
        ("models=teacher,", "no model ''"),
        ("few_steps=3", "one-step students is 3.0"),
        ("few_steps=0", "one-step students is 0.0"),
        ("many_steps=100", "teacher and student is 100.0"),
        ("guidance=11", "guidance is 11.0"),
        ("guidance=much", "guidance is 'much'"),
    ],
)
def test_a_bad_choice_is_refused_by_name(address, message):
    with pytest.raises(ValueError, match=message):
        read(address)
