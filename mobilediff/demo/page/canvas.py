"""A canvas of 32 x 32 pixels to sketch on: black lines, and colours below them.

gradio's own editor answers after a stroke and draws by WebGL; this one answers while the pen moves, with the very
pixels that the network is given, in a PNG of a few hundred bytes.
"""

CANVAS = """
<div class="sketch">
  <canvas width="32" height="32" role="img" aria-label="Sketch: draw here"></canvas>
  <div class="tools">
    <button type="button" data-tool="line" aria-pressed="true"><span style="background: black"></span>Line</button>
    {{#each colors}}<button type="button" data-tool="{{value}}" aria-pressed="false" aria-label="Colour {{name}}"
      title="Colour {{name}}"><span style="background: {{value}}"></span></button>{{/each}}
    <button type="button" data-tool="eraser" aria-pressed="false">Eraser</button>
    <button type="button" data-do="undo">Undo</button>
    <button type="button" data-do="clear">Clear</button>
  </div>
</div>"""
# Two layers, so that colours never hide lines; a value from elsewhere is parted into them by its black pixels. Colours
# fill whole fields of the colour map, so that the page shows what the network is given.
# While the pen moves the value follows once in PAUSE milliseconds, and at the end of a stroke at once.
SKETCH = """
const SIZE = 32, PAUSE = 40, STROKES = 100;
const FIELD = 4, ERASED = 3;
const canvas = element.querySelector("canvas");
const shown = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
const layer = () => {
  const made = document.createElement("canvas");
  made.width = made.height = SIZE;
  return made.getContext("2d", { willReadFrequently: true });
};
const colors = layer(), lines = layer();
let tool = "line", last = null, timer = null, published = null, strokes = [];

const state = () => [colors, lines].map((one) => one.getImageData(0, 0, SIZE, SIZE));
const restore = (images) => [colors, lines].forEach((one, i) => one.putImageData(images[i], 0, 0));
const wipe = () => [colors, lines].forEach((one) => one.clearRect(0, 0, SIZE, SIZE));
const show = () => {
  shown.fillStyle = "white";
  shown.fillRect(0, 0, SIZE, SIZE);
  shown.drawImage(colors.canvas, 0, 0);
  shown.drawImage(lines.canvas, 0, 0);
};
const publish = () => {
  clearTimeout(timer);
  timer = null;
  published = canvas.toDataURL("image/png");
  if (props.value !== published) props.value = published;
};
const remember = () => {
  strokes.push(state());
  if (strokes.length > STROKES) strokes.shift();
};
const dab = (x, y) => {
  const field = [x, y].map((at) => Math.floor(at / FIELD) * FIELD);
  if (tool === "line") {
    lines.fillStyle = "black";
    lines.fillRect(Math.floor(x), Math.floor(y), 1, 1);
  } else if (tool === "eraser") {
    lines.clearRect(Math.floor(x) - 1, Math.floor(y) - 1, ERASED, ERASED);
    colors.clearRect(...field, FIELD, FIELD);
  } else {
    colors.fillStyle = tool;
    colors.fillRect(...field, FIELD, FIELD);
  }
};
const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * SIZE, (event.clientY - box.top) / box.height * SIZE];
};
const reach = (x, y) => {
  const [fromX, fromY] = last ?? [x, y];
  const steps = Math.max(1, Math.ceil(2 * Math.max(Math.abs(x - fromX), Math.abs(y - fromY))));
  for (let i = 1; i <= steps; i++) dab(fromX + (x - fromX) * i / steps, fromY + (y - fromY) * i / steps);
  last = [x, y];
};
const load = () => {
  if (props.value === published) return;
  const image = new Image(), value = props.value;
  image.onload = () => {
    wipe();
    colors.drawImage(image, 0, 0);
    const pixels = colors.getImageData(0, 0, SIZE, SIZE), black = lines.createImageData(SIZE, SIZE);
    for (let i = 0; i < pixels.data.length; i += 4) {
      const sum = pixels.data[i] + pixels.data[i + 1] + pixels.data[i + 2];
      if (sum === 0) black.data[i + 3] = 255;
      if (sum === 0 || sum === 3 * 255) pixels.data[i + 3] = 0;
    }
    restore([pixels, black]);
    published = value;
    strokes = [];
    show();
  };
  image.src = value;
};

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  remember();
  last = null;
  reach(...place(event));
  show();
  timer ??= setTimeout(publish, PAUSE);
});
canvas.addEventListener("pointermove", (event) => {
  if (last === null || !canvas.hasPointerCapture(event.pointerId)) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const one of events.length ? events : [event]) reach(...place(one));
  show();
  timer ??= setTimeout(publish, PAUSE);
});
for (const end of ["pointerup", "pointercancel"])
  canvas.addEventListener(end, () => {
    if (last !== null) publish();
    last = null;
  });
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.tool) {
    tool = button.dataset.tool;
    for (const one of element.querySelectorAll("[data-tool]")) one.setAttribute("aria-pressed", one === button);
  } else if (button?.dataset.do) {
    if (button.dataset.do === "clear") {
      remember();
      wipe();
    } else if (strokes.length) {
      restore(strokes.pop());
    }
    show();
    publish();
  }
});
watch("value", load);
load();
"""
CSS = """
.sketch { max-width: 384px; margin: 0 auto; }
.sketch canvas {
  display: block; width: 100%; aspect-ratio: 1; image-rendering: pixelated; touch-action: none; cursor: crosshair;
  border: 1px solid var(--border-color-primary); border-radius: 4px; background: white;
}
.sketch .tools { display: flex; flex-wrap: wrap; gap: 4px; margin-top: 8px; }
.sketch button {
  all: unset; box-sizing: border-box; min-width: 32px; height: 32px; padding: 0 6px; display: inline-flex; gap: 6px;
  align-items: center; justify-content: center; cursor: pointer; font-size: var(--text-sm);
  border: 1px solid var(--border-color-primary); border-radius: 4px; color: var(--body-text-color);
}
.sketch button span { width: 18px; height: 18px; border-radius: 50%; border: 1px solid var(--border-color-primary); }
.sketch button[aria-pressed="true"] { outline: 3px solid var(--color-accent); outline-offset: -1px; }
.sketch button:focus-visible { outline: 3px solid var(--color-accent); outline-offset: 2px; }
@media (max-width: 480px) { .sketch { max-width: 300px; } }
"""
