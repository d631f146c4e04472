"""Lay the records of a comparison out as cards, one a model."""

# Cards stand side by side on a wide screen and below each other on a telephone. Image i has the same place in every
# card, since it grew from the same noise. gradio fills the template and then evaluates it as a JavaScript template
# string, so only the project's own words may be among the values it shows, never a visitor's: not a record's prompt.
# Where `pairs` is true, a card's name is a button that chooses the card.
CARDS = """
<div class="cards">{{#each value}}<section class="card {{status}}">
  <h3>{{#if ../pairs}}<button type="button" aria-pressed="false">{{name}}</button>{{else}}{{name}}{{/if}}</h3>
  <p class="time">{{time}}</p>{{#if speed}}<p class="speed">{{speed}}</p>{{/if}}
  <div class="strip n{{batch_size}}">
    {{#each images}}<img src="{{this}}" alt="{{../name}}, image {{@index}}" title="{{../name}}">{{/each}}</div>
  {{#if quality}}<p class="quality">{{#each quality}}<span>{{this}}</span>{{/each}}</p>{{/if}}
  <p class="figures">{{#each figures}}<span>{{this}}</span>{{/each}}</p>
</section>{{/each}}</div>"""
# A click on two cards that have pictures chooses them; a third one takes the place of the first.
CHOOSE_PAIR = """
let chosen = [];
const mark = (card, on) => {
  card.classList.toggle("chosen", on);
  card.querySelector("button").setAttribute("aria-pressed", on);
};
element.addEventListener("click", (event) => {
  const card = event.target.closest(".card.done");
  if (!card) return;
  chosen = chosen.filter((other) => other.classList.contains("chosen"));
  if (chosen.includes(card)) {
    chosen = chosen.filter((other) => other !== card);
  } else {
    chosen.push(card);
    if (chosen.length > 2) mark(chosen.shift(), false);
  }
  mark(card, chosen.includes(card));
  trigger("select");
});
"""
# Draws the pictures of each of the two chosen cards on a canvas, each pixel as a square; hides the slider before.
SHOW_PAIR = """() => {
  const cards = [...document.querySelectorAll("#comparison .card.chosen")];
  if (cards.length < 2) return { __type__: "update", visible: false, value: null };
  const pictures = cards.map((card) => {
    const images = [...card.querySelectorAll("img")];
    const columns = Math.ceil(Math.sqrt(images.length));
    const side = Math.floor(768 / columns / images[0].naturalWidth) * images[0].naturalWidth;
    const canvas = document.createElement("canvas");
    canvas.width = columns * side;
    canvas.height = Math.ceil(images.length / columns) * side;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    images.forEach((image, i) =>
      context.drawImage(image, (i % columns) * side, Math.floor(i / columns) * side, side, side));
    const url = canvas.toDataURL("image/png");
    return { path: url, url, orig_name: "pictures.png", meta: { _type: "gradio.FileData" } };
  });
  const names = cards.map((card) => card.querySelector("h3").textContent);
  return { __type__: "update", visible: true, value: pictures, label: names.join(" | ") };
}"""
CSS = """
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; align-items: start; }
.card { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 8px; }
.card h3 { margin: 0; font-size: 13px; } .card p { margin: 4px 0; font-size: 13px; } .card .time { font-weight: 600; }
.card .figures, .card .quality { color: var(--body-text-color-subdued); font-size: var(--text-sm); }
.card .figures span, .card .quality span { display: inline-block; margin-right: 12px; }
.card.waiting, .card.running { opacity: .6; }
.card.failed .time { color: var(--error-text-color); }
.card h3 button { all: unset; cursor: pointer; text-decoration: underline dotted; text-underline-offset: 4px; }
.card h3 button:focus-visible { outline: 2px solid var(--color-accent); outline-offset: 4px; }
.card.waiting h3 button, .card.running h3 button, .card.failed h3 button { cursor: default; text-decoration: none; }
.card.chosen { outline: 3px solid var(--color-accent); outline-offset: -1px; }
.strip { display: grid; gap: 4px; grid-template-columns: repeat(2, 1fr); } .strip.n1 { grid-template-columns: 1fr; }
.strip img { width: 100%; aspect-ratio: 1; margin: 0; image-rendering: pixelated; }
.waiting .strip, .running .strip { aspect-ratio: 1; }
.note .html-container, .results .html-container { padding: 0; } .note { font-weight: 600; }
@media (max-width: 480px) {
  .strip { grid-template-columns: repeat(4, 1fr); } .strip.n1 { width: 50%; }
  .waiting .strip, .running .strip { aspect-ratio: 4; }
}
"""
