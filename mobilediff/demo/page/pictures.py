"""Lay pictures out, each with its caption, to look at or to choose one."""

# Only the project's own words may be among the values, as in the cards of a comparison.
PICTURES = """
<p class="time">{{value.text}}</p><div class="pictures">{{#each value.pictures}}
  <figure><img src="{{image}}" alt="{{caption}}"><figcaption>{{caption}}</figcaption></figure>{{/each}}</div>"""
# The same, each picture a button; one that is pressed is handed to the listeners of `select`, as `image`.
CHOICES = PICTURES.replace("<img", '<button type="button"><img').replace("<figcaption>", "</button><figcaption>")
CHOOSE = """
element.addEventListener("click", (event) => {
  const picture = event.target.closest(".pictures button")?.querySelector("img");
  if (picture) trigger("select", { image: picture.src });
});
"""
CSS = """
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); gap: 8px; }
.pictures figure { margin: 0; }
.pictures img { width: 100%; aspect-ratio: 1; margin: 0; image-rendering: pixelated; }
.pictures button { all: unset; display: block; width: 100%; cursor: pointer; }
.pictures button:focus-visible { outline: 3px solid var(--color-accent); outline-offset: 2px; }
.pictures figcaption { margin-top: 4px; font-size: var(--text-sm); line-height: 1.25; overflow-wrap: anywhere; }
.explored .html-container { padding: 0; } .explored .time { margin: 4px 0; font-weight: 600; }
"""
