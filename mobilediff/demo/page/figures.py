"""Tabulate figures beside those of undamaged or real images."""

from collections.abc import Sequence

import gradio as gr

WIDTHS: list[str | int] = [150, 110, 110, 110, 110]  # of columns, in pixels; a telephone scrolls to the last ones


def figures_table(columns: Sequence[str]) -> gr.Dataframe:
    """Make an empty table with as many columns as `WIDTHS`; the first holds the figures' names."""
    return gr.Dataframe(
        headers=list(columns), label="Figures", interactive=False, wrap=True, type="array", column_widths=WIDTHS
    )
