"""The app's tab of results: what its table, plots and rows say, beside what the report's file holds."""

import json
import shutil
from pathlib import Path

import gradio as gr
import pytest

from eval.reporting.tables import DAMAGED, REAL, RECONSTRUCTED, SCALE, figures
from eval.schema import read_results
from mobilediff.demo import results
from mobilediff.demo.environment import RESULTS, ROOT
from mobilediff.demo.page import quality_plot
from mobilediff.demo.service.examples import load_examples
from mobilediff.demo.service.reported import reported_records

RECORDS = reported_records(RESULTS)


def trace(figure, name: str):
    (found,) = [one for one in figure.data if one.name.startswith(name)]
    return found


def test_all_rows_with_figures_are_there_models_first():
    kept = read_results(RESULTS).records
    assert set(RECORDS) == set(kept)
    assert list(RECORDS)[0] == "teacher" and tuple(RECORDS)[-3:] == SCALE


def test_the_table_sorts_by_numbers_and_shows_the_reports_texts():
    columns = ["image (ms)", "Fréchet distance", "params (M)"]
    content = results.table_content(RECORDS, columns)
    assert content["headers"] == ["name", *columns]
    for name, values, texts in zip(RECORDS, content["data"], content["metadata"]["display_value"], strict=True):
        tables = figures(RECORDS[name])
        expected = tables["cost"] | tables["quality"]
        assert texts == [name, *(expected.get(column, "") for column in columns)]
        assert values[0] == name
        for value, text in zip(values[1:], texts[1:], strict=True):
            assert value is None if text == "" else float(text.split()[0]) == pytest.approx(value, abs=0.051)
    assert any(value is None for values in content["data"] for value in values)


def test_the_sentence_states_the_number_of_samples_and_a_row_that_has_another():
    assert results.describe(RECORDS).startswith("10,000 samples a row.")
    distance = RECORDS["student"].frechet_distance.model_copy(update={"n": 2000})
    other = RECORDS | {"student": RECORDS["student"].model_copy(update={"frechet_distance": distance})}
    assert "10,000 samples a row but student 2,000" in results.describe(other)


@pytest.mark.parametrize("cost", quality_plot.COSTS)
@pytest.mark.parametrize("quality", quality_plot.plotted_qualities(RECORDS))
def test_a_plot_has_every_model_its_interval_and_the_scale(cost, quality):
    figure = quality_plot.draw_plot(RECORDS, cost, quality)
    points = {
        name: (x, y, above, below)
        for one in figure.data
        if one.mode == "markers"
        for name, x, y, above, below in zip(
            one.customdata, one.x, one.y, one.error_y.array, one.error_y.arrayminus, strict=True
        )
    }
    expected = {
        name
        for name, record in RECORDS.items()
        if record.model and {cost, quality} <= quality_plot.row_cells(record).keys()
    }
    assert set(points) == expected and len(expected) > 5
    for name, (x, y, above, below) in points.items():
        cells = quality_plot.row_cells(RECORDS[name])
        assert (x, y) == (cells[cost].value, cells[quality].value)
        if interval := cells[quality].interval:
            assert (y + above, y - below) == pytest.approx((interval.high, interval.low))
    low, high = figure.layout.yaxis.range
    for name in (REAL, RECONSTRUCTED):
        assert low < trace(figure, f"{name}:").y[0] < high
    (note,) = figure.layout.annotations
    assert note.text.startswith(f"{DAMAGED}: ") and note.text.endswith("beyond the axis")
    assert not low < quality_plot.row_cells(RECORDS[DAMAGED])[quality].value < high


def test_the_front_is_of_low_distances_and_of_high_accuracies():
    def front(quality: str) -> list[float]:
        return list(trace(quality_plot.draw_plot(RECORDS, "image (ms)", quality), "Pareto front").y)

    distances, scores = front("Fréchet distance"), front("CLIP score")
    assert distances == sorted(distances, reverse=True) and len(distances) > 1
    assert distances[-1] == min(
        record.frechet_distance.frechet_distance_judge
        for record in RECORDS.values()
        if record.model and record.frechet_distance
    )
    assert scores == sorted(scores)


def test_dots_are_as_large_as_their_parameters_and_as_many_families_as_shipped_models():
    figure = quality_plot.draw_plot(RECORDS, "image (ms)", "Fréchet distance")
    families = {one.name: one for one in figure.data if one.mode == "markers"}
    assert set(families) == {name for name, record in RECORDS.items() if record.shipped}
    assert "student-1step-dmd2" in families["student-1step"].customdata
    assert "student-4step" in families["student"].customdata
    assert families["teacher"].marker.size == (RECORDS["teacher"].size.params_total / 1e6,)
    assert (
        len({one.marker.color for one in families.values()})
        == len({one.marker.symbol for one in families.values()})
        == 5
    )


def test_pictures_are_of_the_measured_weights_alone():
    examples = load_examples(ROOT / "examples")
    pictures = results.example_pictures(RECORDS, examples)
    assert set(pictures) == {name for name, record in RECORDS.items() if record.shipped}
    assert len(pictures["teacher"]) == len(examples) * results.PICTURES
    for example in examples:
        for record in example["records"]:
            if record["name"] == "student":
                record["model_sha256"] = "0" * 64
    assert set(pictures) - set(results.example_pictures(RECORDS, examples)) == {"student"}


def test_a_row_says_where_its_checkpoint_is(monkeypatch):
    shown = {name: results.row_html(name, RECORDS[name], []) for name in ("student", "student-4step", REAL)}
    assert "<code>checkpoints/student</code>" in shown["student"] and "<a " not in shown["student"]
    assert "not in checkpoints/" in shown["student-4step"] and "For scale" in shown[REAL]
    monkeypatch.setenv("SPACE_ID", 'someone/"mobilediff')
    linked = results.row_html("student", RECORDS["student"], [])
    assert '<a href="https://huggingface.co/spaces/someone/&quot;mobilediff/tree/main/checkpoints/student"' in linked


def test_names_are_escaped():
    shown = results.row_html("<script>", RECORDS["student"], [("<b>", "data:,")])
    assert "<script>" not in shown and "<b>" not in shown and "&lt;script&gt;" in shown


def components(file: Path) -> list[dict]:
    with gr.Blocks() as demo:
        results.build_tab([], file)
    return demo.config["components"]


def missing(file: Path) -> None:
    file.unlink()


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


def without_rows(file: Path) -> None:
    file.write_text(json.dumps({"schema": 5, "records": {}}))


def of_another_kind(file: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    content["records"]["teacher"]["size"]["nfe"] = "forty-two"
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("damage", [missing, truncated, without_rows, of_another_kind])
def test_a_missing_or_damaged_file_is_a_sentence_in_the_tab(damage, tmp_path, caplog):
    assert {"plot", "dataframe"} <= {component["type"] for component in components(RESULTS)}
    file = tmp_path / "results.json"
    shutil.copy(RESULTS, file)
    damage(file)
    (only,) = [component for component in components(file) if component["type"] == "markdown"]
    assert only["props"]["value"] == results.NOT_READ and str(tmp_path) not in only["props"]["value"]
    assert str(file) in caplog.text


def test_rows_that_were_sized_alone_are_a_table_without_a_plot(tmp_path):
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    content["records"] = {"teacher": content["records"]["teacher"]}
    for section in ("latency", "throughput", "frechet_distance", "quality", "nouns", "clip"):
        content["records"]["teacher"].pop(section)
    (file := tmp_path / "results.json").write_text(json.dumps(content))
    assert "dataframe" in {component["type"] for component in components(file)}


def test_programs_read_the_rows_and_bad_names_are_refused():
    with gr.Blocks() as demo:
        results.build_tab([])
    public = {fn.api_name: fn.fn for fn in demo.fns.values() if fn.api_visibility == "public"}
    assert set(public) == {"results", "result"}
    assert all(function.__doc__ for function in public.values())
    assert list(public["results"]()) == list(RECORDS)
    row = public["result"]("student-1step")
    assert row["figures"] == public["results"]()["student-1step"] and row["checkpoint"] == "checkpoints/student-1step"
    assert row["command"].startswith("python -m eval.report --models student-1step ")
    for bad in ("nothing", None, 7, ["student"], "x" * 10_000, "\ud800"):
        with pytest.raises(ValueError, match="The row is .*accepted are teacher, student"):
            public["result"](bad)
