"""Link to the project's files on Hugging Face Spaces; elsewhere they lie beside app.py and are named."""

import html
import os
import re

from mobilediff.demo.environment import ROOT

# A link of Markdown, or a picture, whose target is no address of its own: text and path.
RELATIVE_LINK = re.compile(r"!?\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


def source_url(path: str) -> str | None:
    """Return the address of a file or folder of the Space that runs the app; None where it runs elsewhere."""
    space = os.environ.get("SPACE_ID")
    kind = "tree" if (ROOT / path.partition("#")[0]).is_dir() else "blob"
    return f"https://huggingface.co/spaces/{space}/{kind}/main/{path}" if space else None


def source_link(path: str) -> str:
    """Write a link to a file or folder as HTML, or its path where there is no address."""
    url, shown = source_url(path), f"<code>{html.escape(path)}</code>"
    return f'<a href="{html.escape(url)}" target="_blank" rel="noopener">{shown}</a>' if url else shown


def with_source_links(markdown: str) -> str:
    """Replace the relative links of Markdown by addresses, or by their text and path where there are none."""

    def replaced(match: re.Match) -> str:
        text, path = match.groups()
        return f"[{text}]({url})" if (url := source_url(path)) else f"{text}, `{path}`"

    return RELATIVE_LINK.sub(replaced, markdown)
