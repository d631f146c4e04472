/** Wires the page: choices to drawings, drawings to cards. */

import * as Comlink from "comlink";
import "./style.css";
import type { Preference } from "./backend";
import type { CatalogModel } from "./catalog";
import type { Engine, Progress, Started, Text } from "./engine";
import { MAX_SEED } from "./noise";
import { Card } from "./ui/card";
import { byId, make } from "./ui/elements";
import { fitFrame } from "./ui/frame";
import { wireInterpolation } from "./ui/interpolation";
import { Latest } from "./ui/latest";
import { type Choices, readChoices, writeChoices } from "./ui/link";
import { CLASSES, describeReading, readPrompt } from "./ui/prompt";
import { type DrawSketch, wireSketching } from "./ui/sketching";
import { backendName, hideError, showBackend, showError, showProgress } from "./ui/status";
import { Timings } from "./ui/timings";

const BASE = new URL(".", document.baseURI).href;

const form = byId("controls", HTMLFormElement);
const promptInput = byId("prompt", HTMLInputElement);
const seedInput = byId("seed", HTMLInputElement);
const slider = byId("slider", HTMLInputElement);
const live = byId("live", HTMLInputElement);
const countInput = byId("count", HTMLInputElement);
const modelBoxes = byId("models", HTMLDivElement);
const drawButton = byId("draw", HTMLButtonElement);
const gallery = byId("gallery", HTMLElement);
const reading = byId("reading", HTMLParagraphElement);
const preference = byId("preference", HTMLSelectElement);
const copied = byId("copied", HTMLParagraphElement);
const copyResult = byId("copy-result", HTMLButtonElement);
const resultLine = byId("result-line", HTMLOutputElement);

const timings = new Timings();
const jobs = new Latest();
const cards = new Map<string, Card>();
let started: Started;
let engine: Comlink.Remote<Engine>;
let drawSketch = async () => {};
/** Jobs under way: their last news of a download may come after their end. */
let busy = 0;

function choices(): Choices {
  const checked = [...modelBoxes.querySelectorAll<HTMLInputElement>("input:checked")];
  return {
    prompt: promptInput.value,
    seed: seedInput.valueAsNumber,
    count: countInput.valueAsNumber,
    models: checked.map((box) => box.value),
    preference: preference.value as Preference,
  };
}

/** Returns the first model that is ticked, else the first of all. */
function firstModel(): string {
  return choices().models[0] ?? (started.catalog.models[0] as CatalogModel).name;
}

function showChoices(chosen: Choices): void {
  promptInput.value = chosen.prompt;
  seedInput.value = slider.value = `${chosen.seed}`;
  countInput.value = `${chosen.count}`;
  preference.value = chosen.preference;
}

function showReading(): void {
  const text = readPrompt(promptInput.value, started.nouns);
  reading.textContent = describeReading(text, started.nouns, started.template);
}

/** Runs a job, and shows its error or hides the last one's. */
function run(job: () => Promise<void>): Promise<void> {
  return jobs.run(async () => {
    busy += 1;
    try {
      await job();
      hideError();
    } catch (error) {
      showError(error, false);
    }
    busy -= 1;
    if (!busy) showBackend(started);
  });
}

function cardOf(model: CatalogModel): Card {
  const card = cards.get(model.name) ?? new Card(model);
  cards.set(model.name, card);
  return card;
}

async function drawPictures(): Promise<void> {
  const { prompt, seed, count, models } = choices();
  const text = readPrompt(prompt, started.nouns);
  const shown = started.catalog.models.filter((model) => models.includes(model.name));
  if (!shown.length) throw new Error("Choose a model: none is ticked.");
  gallery.replaceChildren(...shown.map((model) => cardOf(model).element));
  for (const model of shown) {
    const card = cardOf(model);
    card.prepare(prompt, seed, count);
    for (let place = 0; place < count; place++) {
      if (jobs.isOutdated) return;
      await drawPicture(model.name, card, text, (seed + place) % (MAX_SEED + 1), place);
    }
  }
}

async function drawPicture(model: string, card: Card, text: Text, seed: number, place: number): Promise<void> {
  const { pixels, milliseconds } = await engine.draw(model, text, seed);
  card.show(place, seed, pixels);
  performance.mark("picture");
  timings.add(model, milliseconds);
  const { medianMs, runs } = timings.of(model) as { medianMs: number; runs: number };
  card.showTime(medianMs, runs);
  copyResult.disabled = false;
}

async function draw(): Promise<void> {
  if (drawButton.disabled || !form.reportValidity()) return;
  history.replaceState(null, "", writeChoices(choices()));
  await run(async () => {
    await drawPictures();
    if (!jobs.isOutdated) await drawSketch();
  });
}

async function copy(text: string, what: string): Promise<void> {
  resultLine.textContent = text;
  try {
    await navigator.clipboard.writeText(text);
    copied.textContent = `Copied the ${what}.`;
    resultLine.hidden = true;
  } catch {
    copied.textContent = `This browser does not let the page copy the ${what}; here it is:`;
    resultLine.hidden = false;
  }
}

/** Takes the choices that the address was changed to, by the visitor or by a page that embeds this one. */
function takeChoices(): void {
  const chosen = readChoices(location.hash);
  if (chosen.preference !== preference.value) {
    location.reload();
    return;
  }
  showChoices(chosen);
  if (drawButton.disabled) return; // it starts, and draws them then
  wireModels(started.catalog.models, chosen.models);
  showReading();
  void draw();
}

function wireChoices(): void {
  addEventListener("hashchange", takeChoices);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void draw();
  });
  promptInput.addEventListener("input", showReading);
  slider.addEventListener("input", () => {
    seedInput.value = slider.value;
    if (live.checked) void draw();
  });
  seedInput.addEventListener("input", () => {
    slider.value = seedInput.value;
  });
  byId("random", HTMLButtonElement).addEventListener("click", () => {
    seedInput.value = slider.value = `${Math.floor(Math.random() * (Number(slider.max) + 1))}`;
    void draw();
  });
  preference.addEventListener("change", () => {
    history.replaceState(null, "", writeChoices(choices()));
    location.reload();
  });
  byId("copy-link", HTMLButtonElement).addEventListener("click", () => {
    void copy(new URL(writeChoices(choices()), location.href).href, "link");
  });
  copyResult.addEventListener("click", () => {
    const backend = `${backendName(started)}, onnxruntime-web ${started.catalog.onnxruntime}`;
    void copy(timings.line(backend, navigator.userAgent, navigator.hardwareConcurrency), "result");
  });
}

function wireModels(all: readonly CatalogModel[], chosen: readonly string[]): void {
  const models = all.filter((model) => !model.controlled);
  const known = models.filter((model) => chosen.includes(model.name));
  const checked = known.length ? known : models.slice(0, 1);
  modelBoxes.replaceChildren(
    ...models.map((model) => {
      const box = make("input", { type: "checkbox", value: model.name, checked: checked.includes(model) });
      return make("label", { className: "check" }, box, ` ${model.name}`);
    }),
  );
}

function wirePrompt(): void {
  const options = started.nouns.map((noun) => make("option", { value: noun }));
  byId("nouns", HTMLDataListElement).replaceChildren(...options);
  byId("classes", HTMLDivElement).replaceChildren(
    ...CLASSES.map((name) => {
      const chip = make("button", { type: "button", textContent: name });
      chip.addEventListener("click", () => {
        promptInput.value = name;
        showReading();
        void draw();
      });
      return chip;
    }),
  );
}

/** Shows where to sketch, if there is a model that draws by a sketch. */
function wireControl(): void {
  const model = started.catalog.models.find((one) => one.controlled);
  if (!model) return;
  const draw: DrawSketch = async (control) => {
    if (jobs.isOutdated || !form.reportValidity()) return null;
    const { prompt, seed } = choices();
    const picture = await engine.draw(model.name, readPrompt(prompt, started.nouns), seed, control);
    timings.add(model.name, picture.milliseconds);
    return { picture, prompt, seed };
  };
  const redraw = wireSketching((job) => void run(() => job(draw)));
  drawSketch = () => redraw(draw);
}

async function keepForOffline(): Promise<void> {
  busy += 1;
  try {
    await engine.keepForOffline(firstModel());
    document.documentElement.dataset.offline = "ready";
  } catch (error) {
    showError(error, false);
  }
  busy -= 1;
  if (!busy) showBackend(started);
}

async function start(): Promise<void> {
  const chosen = readChoices(location.hash);
  fitFrame();
  showChoices(chosen);
  wireChoices();
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  const Remote = Comlink.wrap<typeof Engine>(worker);
  engine = await new Remote(BASE, Comlink.proxy((progress: Progress) => busy && showProgress(progress)));
  busy += 1;
  started = await engine.start(chosen.preference, chosen.models[0] ?? null);
  busy -= 1;
  showBackend(started);
  wireModels(started.catalog.models, readChoices(location.hash).models);
  wirePrompt();
  showReading();
  wireInterpolation(started.nouns, (job) =>
    void run(() =>
      job(async (text) => {
        if (jobs.isOutdated) return null;
        return (await engine.draw(firstModel(), text, choices().seed)).pixels;
      }),
    ),
  );
  wireControl();
  drawButton.disabled = false;
  await draw();
  await keepForOffline();
}

start().catch((error: unknown) => showError(error, true));
