"""Lay pictures out, each with its caption."""

# Only the project's own words may be among the values, as in the cards of a comparison.
PICTURES = """
<p class="time">{{value.text}}</p><div class="pictures">{{#each value.pictures}}
  <figure><img src="{{image}}" alt="{{caption}}"><figcaption>{{caption}}</figcaption></figure>{{/each}}</div>"""
CSS = """
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); gap: 8px; }
.pictures figure { margin: 0; }
.pictures img { width: 100%; aspect-ratio: 1; margin: 0; image-rendering: pixelated; }
.pictures figcaption { font-size: var(--text-sm); line-height: 1.25; overflow-wrap: anywhere; }
.explored .html-container { padding: 0; } .explored .time { margin: 4px 0; font-weight: 600; }
"""
