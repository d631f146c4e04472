"""Share parts of the page among tabs: cards, streams of results."""
