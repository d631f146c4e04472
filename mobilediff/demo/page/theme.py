"""Colours and fonts of the page: text stands out by 4.5 to 1 at least, and nothing is fetched from elsewhere."""

import gradio as gr


def theme() -> gr.themes.Base:
    """Make the theme: gradio's own with the system's fonts, and with more contrast than it has."""
    font, font_mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gr.themes.Default(primary_hue="indigo", font=font, font_mono=font_mono).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )


# The tab that is open has the colour of the accent, which has no variant for the dark; colours of code are too pale.
# What scrolls must be reached by keys: code is broken into lines, and a table without rows has nothing to scroll for.
CSS = """
button[role="tab"].selected { color: var(--body-text-color) !important; font-weight: 600; }
.prose .token { color: inherit !important; }
.prose pre code { white-space: pre-wrap; overflow-wrap: anywhere; }
.table-container.no-rows .virtual-table-viewport { overflow: hidden !important; }
"""
