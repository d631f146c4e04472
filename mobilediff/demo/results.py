"""Show the report's figures: a table, plots of quality over cost, and each row's pictures and command."""

import html
from pathlib import Path

import gradio as gr

from eval.reporting.commands import report_command
from eval.reporting.headline import processor, sample_counts
from eval.reporting.tables import SCALE
from eval.schema import Record
from mobilediff.demo.environment import RESULTS
from mobilediff.demo.page.blocks import of_event
from mobilediff.demo.page.quality_plot import COSTS, draw_plot, plotted_qualities, row_cells
from mobilediff.demo.page.sources import source_link, source_url
from mobilediff.demo.service.inputs import check_choice, check_names
from mobilediff.demo.service.reported import reported_records

NOT_READ = (
    "There are no results to show: docs/results.json is missing or damaged, and the log of the app says how. "
    "`python -m eval.report` measures them."
)
PLOT_LEGEND = (
    "The larger a dot, the more parameters; its bar is the 95% interval. No model on the line is beaten in both. "
    "A dot, a line of the table or a name shows that row's pictures and command."
)
NAME = "name"
FIRST_COLUMNS = ("image (ms)", "Fréchet distance", "class accuracy", "CLIP score")  # beside the name
PICTURES = 2  # of each example's prompt

CSS = """
#result-plot text { fill: var(--body-text-color) !important; }
#result-plot .gridlayer path, #result-plot .zerolinelayer path { stroke: var(--border-color-primary) !important; }
#result-plot .hovertext path { fill: var(--background-fill-primary) !important; }
#result-plot .nsewdrag { touch-action: pan-y; }
.result h3 { margin: 0 0 4px; } .result p { margin: 4px 0; }
.result .pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(56px, 1fr)); gap: 4px; }
.result .pictures img { width: 100%; aspect-ratio: 1; margin: 0; image-rendering: pixelated; }
.result dl { display: grid; grid-template-columns: auto auto; gap: 2px 12px; margin: 4px 0; }
.result dd { margin: 0; text-align: right; }
"""

# plotly has no event of gradio's: this tells the server which dot is hovered, clicked or touched. gradio draws another
# element for each plot. The filter of gradio's table has no label of its own.
LISTEN = """
const listen = () => {
  for (const plot of document.querySelectorAll("#result-plot .js-plotly-plot:not([data-listens])")) {
    plot.dataset.listens = "";
    let shown;
    const show = ({ points }) => {
      const row = points[0].customdata;
      if (row && row !== shown) trigger("select", { row: (shown = row) });
    };
    plot.on("plotly_hover", show);
    plot.on("plotly_click", show);
  }
  for (const filter of document.querySelectorAll(".search-input:not([aria-label])")) filter.ariaLabel = "Filter rows";
};
new MutationObserver(listen).observe(document.body, { childList: true, subtree: true });
listen();
"""
SHOW_DETAILS = """() => document.querySelector(".result").scrollIntoView({ block: "nearest" })"""


def choose_row(records: dict[str, Record], name: str) -> Record:
    """Return the record of a row.

    Raises:
        ValueError: there is no such row.
    """
    return records[check_choice("row", name, list(records))]


def table_content(records: dict[str, Record], columns: list[str]) -> dict:
    """Fill the table: numbers to sort by, and the text that is shown for each."""
    rows = {name: row_cells(record) for name, record in records.items()}
    shown = {name: [cells.get(column) for column in columns] for name, cells in rows.items()}
    return {
        "headers": [NAME, *columns],
        "data": [[name, *(cell.value if cell else None for cell in row)] for name, row in shown.items()],
        "metadata": {
            "display_value": [[name, *(cell.text if cell else "" for cell in row)] for name, row in shown.items()]
        },
    }


def describe(records: dict[str, Record]) -> str:
    """State numbers of samples, meaning of the figures and machine, in Markdown."""
    sentences = []
    distances = {name: record.frechet_distance for name, record in records.items() if record.frechet_distance}
    if distances:
        protocol = next(iter(distances.values())).protocol
        sentences += [
            sample_counts({name: distance.n for name, distance in distances.items()}),
            f"Fréchet distance: of the features of this project's own classifier against {protocol.reference}, not "
            "FID; lower is better. Class accuracy is of the same classifier, the CLIP score of this project's CLIP.",
        ]
    if counts := sorted({record.nouns.n for record in records.values() if record.nouns}):
        sentences.append(f"Nouns: {' or '.join(f'{count:,}' for count in counts)} samples.")
    if timed := [record.latency.protocol for record in records.values() if record.latency]:
        sentences.append(
            f"Milliseconds: median / 90th percentile, batch {timed[0].batch_size}, {timed[0].dtype}, on "
            f"{processor(timed[0])}."
        )
    return " ".join(sentences)


def example_pictures(records: dict[str, Record], examples: list[dict]) -> dict[str, list[tuple[str, str]]]:
    """Collect prompts and pictures, as data URIs, of the rows whose very weights drew the examples."""
    pictures: dict[str, list[tuple[str, str]]] = {}
    for example in examples:
        for drawn in example["records"]:
            row = records.get(drawn["name"])
            if row and row.model_sha256 == drawn["model_sha256"]:
                pictures.setdefault(drawn["name"], []).extend(
                    (example["prompt"], uri) for uri in drawn["images"][:PICTURES]
                )
    return pictures


def row_html(name: str, record: Record, pictures: list[tuple[str, str]]) -> str:
    """Write a row's name, pictures, checkpoint and figures as HTML."""
    images = "".join(
        f'<img src="{uri}" alt="{html.escape(prompt)}" title="{html.escape(prompt)}">' for prompt, uri in pictures
    )
    shown = f'<div class="pictures">{images}</div>' if pictures else "<p>No pictures of this row are kept.</p>"
    if record.shipped:
        origin = f"Checkpoint: {source_link(f'checkpoints/{name}')}"
    elif record.peer is not None:
        origin = f"Random weights, in the shape of {html.escape(record.peer)}."
    else:
        origin = "For scale: no model drew these images." if name in SCALE else "Its weights are not in checkpoints/."
    cells = row_cells(record)
    figures = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(cell.text)}</dd>" for key, cell in cells.items())
    return (
        f'<section class="result"><h3>{html.escape(name)}</h3>{shown}<p>{origin}</p>'
        f"<details><summary>All figures</summary><dl>{figures}</dl></details></section>"
    )


def build_tab(examples: list[dict], file: Path = RESULTS) -> None:
    """Build the tab's content.

    Args:
        examples: precomputed, as from `load_examples`.
        file: the report's.
    """
    records = reported_records(file)
    if not records:
        gr.Markdown(NOT_READ)
        return
    titles = list(dict.fromkeys(title for record in records.values() for title in row_cells(record)))
    first_titles = [title for title in FIRST_COLUMNS if title in titles]
    pictures = example_pictures(records, examples)

    def results() -> dict[str, dict[str, str]]:
        """List the measured rows, models and images for scale, with all their figures by column."""
        return {
            name: {title: cell.text for title, cell in row_cells(record).items()} for name, record in records.items()
        }

    def result(row: str) -> dict:
        """Return one measured row: its figures, the command that measures it again, and its checkpoint.

        Args:
            row: name of the row, as "student-1step"
        """
        record = choose_row(records, row)
        folder = f"checkpoints/{row}" if record.shipped else None
        return {
            "row": row,
            "figures": results()[row],
            "command": report_command(records, row),
            "checkpoint": folder and (source_url(folder) or folder),
        }

    def show(row):
        record = choose_row(records, row)
        command = f"Measure it again:\n```bash\n{report_command(records, row)}\n```"
        return row, row_html(row, record, pictures.get(row, [])), command

    def show_cell(event: gr.EventData):
        row = of_event(event, "row_value")
        return show(row[0] if isinstance(row, list) and row else row)

    def show_dot(event: gr.EventData):
        return show(of_event(event, "row"))

    def plot_of(cost, quality):
        return draw_plot(records, check_choice("cost", cost, list(COSTS)), check_choice("quality", quality, qualities))

    def table_of(columns):
        if columns != []:
            check_names(columns, titles, "column")
        return table_content(records, list(dict.fromkeys(columns)))

    costs = [(label, title) for title, label in COSTS.items()]
    qualities = plotted_qualities(records)
    first = next((name for name in records if name in pictures), next(iter(records)))
    gr.api(results, api_name="results", concurrency_limit=None)
    gr.api(result, api_name="result", concurrency_limit=None)
    gr.Markdown(describe(records))
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            with gr.Row():
                quality = gr.Dropdown(qualities, value=qualities[0], label="Quality", min_width=160)
                cost = gr.Radio(costs, value=costs[0][1], label="Against", min_width=280)
            plot = gr.Plot(plot_of(costs[0][1], qualities[0]), show_label=False, elem_id="result-plot")
            gr.Markdown(PLOT_LEGEND)
        with gr.Column(scale=2, min_width=320):
            row = gr.Dropdown(list(records), value=first, label="Row")
            _, content, command = show(first)
            details = gr.HTML(content, js_on_load=LISTEN)
            again = gr.Markdown(command, elem_id="result-command")
    columns = gr.Dropdown(titles, value=first_titles, multiselect=True, label="Columns")
    table = gr.Dataframe(
        table_of(first_titles),
        label="All rows",
        interactive=False,
        show_search="filter",
        max_height=800,
    )
    shown = [row, details, again]
    unqueued = {"queue": False, "preprocess": False, "api_visibility": "private"}
    gr.on([cost.change, quality.change], plot_of, [cost, quality], plot, **unqueued)
    columns.change(table_of, columns, table, **unqueued)
    row.input(show, row, shown, show_progress="hidden", **unqueued)
    details.select(show_dot, None, shown, show_progress="hidden", **unqueued)
    selected = table.select(show_cell, None, shown, show_progress="hidden", **unqueued)
    selected.then(None, js=SHOW_DETAILS, api_visibility="private")
