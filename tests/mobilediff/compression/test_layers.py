"""The kinds of layers, of PyTorch's operators by both of their names."""

import pytest

from mobilediff.compression.layers import KINDS, OPERATORS, convolution_kind, operator_kind


@pytest.mark.parametrize(
    ("weight_shape", "groups", "kind"),
    [
        ((8, 4, 1, 1), 1, "1x1 convolution"),
        ((8, 4, 3, 3), 1, "3x3 convolution"),
        ((8, 1, 3, 3), 8, "depthwise convolution"),
        ((8, 1, 3, 3), 1, "3x3 convolution"),  # one channel in
        ((8, 2, 3, 3), 4, "3x3 convolution"),
        ((8, 4, 5, 5), 1, "other"),
    ],
)
def test_a_convolution_is_of_its_kernel_or_depthwise(weight_shape, groups, kind):
    assert convolution_kind(weight_shape, groups) == kind


def test_an_operator_has_one_kind_and_an_unknown_one_is_other():
    assert operator_kind("group_norm") == operator_kind("native_group_norm") == "normalisation"
    assert operator_kind("addmm") == "linear" and operator_kind("silu") == "activation"
    assert operator_kind("add") == operator_kind("") == "other"
    names = [name for names in OPERATORS.values() for name in names.split()]
    assert len(names) == len(set(names)) and set(OPERATORS) < set(KINDS)
