"""The tab about the models: figures of the report, limits and methods of the README, links that lead somewhere."""

import gradio as gr
import pytest

from eval.reporting.insertion import part_of
from mobilediff.demo import about
from mobilediff.demo.environment import RESULTS, ROOT
from mobilediff.demo.page.sources import with_source_links
from mobilediff.demo.service.examples import load_examples
from mobilediff.demo.service.reported import reported_records

RECORDS = reported_records(RESULTS)


def values(**arguments) -> str:
    with gr.Blocks() as demo:
        about.build_tab(load_examples(ROOT / "examples"), **arguments)
    return "\n".join(component["props"].get("value") or "" for component in demo.config["components"])


def test_the_figure_has_the_shipped_models_with_the_reports_figures():
    shipped = {name for name, record in RECORDS.items() if record.shipped}
    assert set(about.LINEAGE) == shipped - {"student-1step-64"}  # student-1step's network, with another decoder
    drawn = about.lineage_html(RECORDS, load_examples(ROOT / "examples"))
    for name, item in zip(about.LINEAGE, drawn.split("<li>")[1:], strict=True):
        record = RECORDS[name]
        assert f"<h3>{name}</h3>" in item and f'alt="a fire truck, drawn by {name}"' in item
        for shown in (
            f"{record.size.params_unet / 1e6:.2f}",
            str(record.size.nfe),
            f"{record.latency.image.median_ms:.1f}",
            f"{record.frechet_distance.frechet_distance_judge:.2f}",
        ):
            assert f"<dd>{shown}</dd>" in item


def test_limits_and_methods_are_the_readmes():
    shown = values()
    for part in ("limits", "methods"):
        assert with_source_links(part_of(about.README, part)) in shown
    assert "32 x 32" in part_of(about.README, "limits")
    assert "arxiv.org/abs/2311.16567" in part_of(about.README, "methods")  # MobileDiffusion


@pytest.mark.parametrize("path", about.DOCUMENTS)
def test_each_document_exists(path):
    assert (ROOT / path).is_file()


def test_links_lead_to_the_space_or_are_paths(monkeypatch):
    text = "[a](docs/results.md#x) ![b](docs/samples.png) [c](https://arxiv.org/abs/1) [d](checkpoints)"
    assert with_source_links(text) == (
        "a, `docs/results.md#x` b, `docs/samples.png` [c](https://arxiv.org/abs/1) d, `checkpoints`"
    )
    monkeypatch.setenv("SPACE_ID", "someone/mobilediff")
    place = "https://huggingface.co/spaces/someone/mobilediff"
    linked = with_source_links(text)
    assert f"[a]({place}/blob/main/docs/results.md#x)" in linked and f"[d]({place}/tree/main/checkpoints)" in linked
    monkeypatch.setenv("SPACE_ID", "")
    assert place not in with_source_links(text)


def test_missing_figures_leave_the_rest(tmp_path, caplog):
    shown = values(file=tmp_path / "results.json")
    assert about.NO_FIGURES in shown and "student-1step-pruned" in shown and "## Limits" in shown
    assert "<dd>" not in shown and str(tmp_path) not in shown and "results.json" in caplog.text


def test_a_readme_without_its_parts_leaves_the_rest(tmp_path, caplog):
    readme = tmp_path / "README.md"
    readme.write_text("# other\n")
    shown = values(readme=readme)
    assert about.NO_README in shown and "## Limits" not in shown and "<dd>" in shown
    assert str(readme) in caplog.text and str(tmp_path) not in shown
