"""A run's state on disk."""

import torch

from mobilediff.training.engine.state import load_state, save_state, saved_states


def test_state_is_replaced_as_one(tmp_path):
    save_state(tmp_path, {"a": torch.ones(2)}, {"step": 1})
    save_state(tmp_path, {"a": torch.full((2,), 2.0)}, {"step": 2})
    assert [path.name for path in saved_states(tmp_path)] == ["state-00000002"]
    tensors, scalars = load_state(tmp_path)
    assert tensors["a"].tolist() == [2.0, 2.0]
    assert scalars == {"step": 2}
