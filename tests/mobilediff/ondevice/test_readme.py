"""The lines of an export's README for phones stand in the documentation, with the shipped student's shapes."""

from pathlib import Path

import pytest

from eval.samples.pipelines import load_sampler
from mobilediff.ondevice.folder import graph_entry
from mobilediff.ondevice.graphs import build_graphs, schedule
from mobilediff.ondevice.manifest import Nouns, Plan
from mobilediff.ondevice.readme import snippets

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The plan of the one-step student."""
    pipeline = load_sampler(ROOT / "checkpoints" / "student-1step")
    steps = schedule(pipeline, 1)
    return Plan(
        model="student-1step",
        format="litert",
        precision="fp32",
        batch_size=1,
        num_inference_steps=1,
        steps=steps,
        fused=True,
        max_tokens=pipeline.tokenizer.model_max_length,
        graphs=[graph_entry(graph, graph.name, {}) for graph in build_graphs(pipeline, steps, batch_size=1)],
        nouns=Nouns(path="nouns.safetensors", template="", dtype="float32", names=[]),
    )


@pytest.mark.parametrize(("name", "languages"), [("litert", ["kotlin"]), ("executorch", ["kotlin", "swift"])])
def test_the_lines_for_phones_are_documented(plan, name, languages):
    documented = (ROOT / "docs" / "on-device.md").read_text(encoding="utf-8")
    lines = snippets(plan.model_copy(update={"format": name}))
    assert [one.splitlines()[0] for one in lines] == [f"```{language}" for language in languages]
    assert all(one in documented for one in lines)


def test_inputs_and_outputs_come_in_the_order_that_the_lines_take(plan):
    assert [one.name for one in plan.graph("image").inputs] == ["noise", "hidden_states", "pooled"]
    assert [one.name for one in plan.graph("text_encoder").outputs] == ["hidden_states", "pooled"]
