"""Lay the records of a comparison out as cards, one a model."""

# Cards stand side by side on a wide screen and below each other on a telephone. Image i has the same place in every
# card, since it grew from the same noise. gradio fills the template and then evaluates it as a JavaScript template
# string, so only the project's own words may be among the values, never a visitor's.
CARDS = """
<div class="cards">{{#each value}}<section class="card {{status}}">
  <h3>{{name}}</h3><p class="time">{{time}}</p><div class="strip n{{batch_size}}">
    {{#each images}}<img src="{{this}}" alt="{{../name}}, image {{@index}}" title="{{../name}}">{{/each}}</div>
  <p class="figures">{{#each figures}}<span>{{this}}</span>{{/each}}</p>
</section>{{/each}}</div>"""
CSS = """
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; align-items: start; }
.card { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 10px; }
.card h3 { margin: 0; } .card p { margin: 4px 0; } .card .time { font-weight: 600; }
.card .figures { color: var(--body-text-color-subdued); font-size: var(--text-sm); }
.card .figures span { display: inline-block; margin-right: 12px; } .card.waiting, .card.running { opacity: .6; }
.card.failed .time { color: var(--error-text-color); }
.strip { display: grid; gap: 4px; grid-template-columns: repeat(2, 1fr); } .strip.n1 { grid-template-columns: 1fr; }
.strip img { width: 100%; aspect-ratio: 1; margin: 0; image-rendering: pixelated; }
.waiting .strip, .running .strip { aspect-ratio: 1; }
.note .html-container, .results .html-container { padding: 0; } .note { font-weight: 600; }
@media (max-width: 480px) {
  .strip { grid-template-columns: repeat(4, 1fr); } .strip.n1 { width: 50%; }
  .waiting .strip, .running .strip { aspect-ratio: 4; }
}
"""
