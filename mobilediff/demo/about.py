"""Say which models these are, what they cannot do, and where their methods come from."""

import html
import logging
from pathlib import Path

import gradio as gr

from eval.reporting.insertion import part_of
from eval.schema import Record
from mobilediff.demo.environment import RESULTS, ROOT
from mobilediff.demo.page.quality_plot import row_cells
from mobilediff.demo.page.sources import source_link, with_source_links
from mobilediff.demo.service.reported import reported_records

logger = logging.getLogger(__name__)

README = ROOT / "README.md"
NO_FIGURES = "The figures are left out: docs/results.json is missing or damaged, and the log of the app says how."
NO_README = "The limits and methods are left out: README.md is missing or damaged, and the log of the app says how."
# Each model, and how it is made of the one before.
LINEAGE = {
    "teacher": "Stock UNet of diffusers, trained from random weights",
    "student": "MobileUNet, by distillation of output and features",
    "student-8step": "Guidance folded in, then the steps halved, again and again",
    "student-1step": "Trained on its (noise, sample) pairs, by a discriminator (UFOGen), by moments of real pictures",
    "student-1step-pruned": "Inner channels removed, repaired by the moments of real pictures",
}
FIGURES = {
    "of these, network (M)": "network, M params",
    "NFE": "network calls",
    "image (ms)": "ms an image",
    "Fréchet distance": "Fréchet distance",
}
DOCUMENTS = {
    "README.md": "use, code map, training",
    "docs/results.md": "every figure of every model",
    "docs/recipe.md": "the ancestry of each weight file",
    "docs/findings.md": "lessons and negative results",
    "docs/ablation.md": "from a stock UNet to MobileUNet, step by step",
    "docs/on-device.md": "exports for phones and browsers",
    "docs/architecture.md": "how the code is built",
    "docs/compatibility.md": "where it runs",
}
CSS = """
.lineage { list-style: none; display: grid; grid-template-columns: repeat(5, 1fr); gap: 28px; margin: 0; padding: 0; }
.lineage > li { position: relative; border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 10px;
  margin: 0; }
.lineage > li + li::before { content: "→"; position: absolute; left: -28px; width: 28px; top: 50%; text-align: center;
  transform: translateY(-50%); }
.lineage h3 { margin: 0 0 4px; } .lineage p { margin: 0 0 6px; font-size: var(--text-sm); }
.lineage img { width: 64px; height: 64px; margin: 0 0 6px; image-rendering: pixelated; }
.lineage dl { display: grid; grid-template-columns: 1fr auto; gap: 0 8px; margin: 0; font-size: var(--text-sm); }
.lineage dt { font-weight: normal; } .lineage dd { margin: 0; text-align: right; }
.methods :is(td, th) { overflow-wrap: normal; word-break: normal; }
@media (max-width: 1000px) {
  .lineage { grid-template-columns: 1fr; }
  .lineage > li + li::before { content: "↓"; left: 0; width: 100%; top: -14px; }
  .lineage img { float: right; margin: 0 0 6px 10px; } .lineage dl { clear: both; }
}
"""


def lineage_html(records: dict[str, Record], examples: list[dict]) -> str:
    """Draw the models from teacher to pruned student, each with a picture and figures, as HTML.

    Args:
        records: of the report, may be empty.
        examples: precomputed; the first gives the pictures, drawn from one noise.
    """
    first = examples[0] if examples else {"prompt": "", "records": []}
    pictures = {record["name"]: record["images"][0] for record in first["records"] if record["images"]}
    items = []
    for name, made in LINEAGE.items():
        cells = row_cells(records[name]) if name in records else {}
        alt = html.escape(f"{first['prompt']}, drawn by {name}")
        picture = f'<img src="{pictures[name]}" alt="{alt}">' if name in pictures else ""
        figures = "".join(
            f"<dt>{label}</dt><dd>{html.escape(cells[title].text.partition(' ')[0])}</dd>"
            for title, label in FIGURES.items()
            if title in cells
        )
        items.append(f"<li><h3>{name}</h3>{picture}<p>{made}</p><dl>{figures}</dl></li>")
    return f'<ol class="lineage">{"".join(items)}</ol>'


def documents_html() -> str:
    """List the project's documents with a line on each, as HTML."""
    return f"<ul>{''.join(f'<li>{source_link(path)}: {what}</li>' for path, what in DOCUMENTS.items())}</ul>"


def build_tab(examples: list[dict], file: Path = RESULTS, readme: Path = README) -> None:
    """Build the tab's content.

    Args:
        examples: precomputed, as from `load_examples`.
        file: the report's.
        readme: holds the limits and the methods, each between its markers.
    """
    records, parts = reported_records(file), {}
    problems = [] if records else [NO_FIGURES]
    try:
        parts = {part: with_source_links(part_of(readme, part)) for part in ("limits", "methods")}
    except (OSError, ValueError) as error:
        logger.warning("%s", error)
        problems.append(NO_README)
    gr.Markdown("\n\n".join(["## The models", *problems]))
    gr.HTML(lineage_html(records, examples))
    if parts:
        gr.Markdown(f"## Limits\n\n{parts['limits']}")
        gr.Markdown(f"## Methods\n\n{parts['methods']}", elem_classes="methods")
    gr.Markdown("## Documents")
    gr.HTML(documents_html(), elem_classes="prose")
