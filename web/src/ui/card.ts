/** Shows a model's pictures, its time on this device, and beside it a server's. */

import type { CatalogModel } from "../catalog";
import { make } from "./elements";
import { fileName, SIZE, savePng, show } from "./pictures";
import { formatMs } from "./timings";

export class Card {
  readonly element: HTMLElement;
  private readonly time = make("strong", { textContent: "–" });
  private readonly note = make("span", { className: "hint" });
  private readonly pictures = make("div", { className: "pictures" });
  private readonly save = make("button", { type: "button", textContent: "Save PNG", disabled: true });
  private prompt = "";
  private seed = 0;

  constructor({ name, steps, server }: CatalogModel) {
    const serverTime = server
      ? [make("strong", { textContent: formatMs(server.medianMs) }), ` on a server’s CPU`]
      : ["not measured on a server"];
    const where = server ? `${server.device}, ${server.threads} threads` : "";
    const title = make("h2", {}, name, " ", make("small", { textContent: steps === 1 ? "1 step" : `${steps} steps` }));
    this.save.addEventListener("click", () => savePng(this.canvases(), fileName(this.prompt, this.seed)));
    this.element = make(
      "section",
      { className: "card" },
      make("div", { className: "row head" }, title, this.save),
      make(
        "div",
        { className: "times" },
        make("p", {}, this.time, " here ", this.note),
        make("p", {}, ...serverTime, " ", make("span", { className: "hint", textContent: where })),
      ),
      this.pictures,
    );
    this.element.setAttribute("aria-label", name);
    this.element.dataset.model = name;
  }

  /** Makes room for the pictures of a prompt and as many seeds. */
  prepare(prompt: string, seed: number, count: number): void {
    [this.prompt, this.seed] = [prompt, seed];
    while (this.pictures.children.length > count) this.pictures.lastElementChild?.remove();
    while (this.pictures.children.length < count) {
      const canvas = make("canvas", { width: SIZE, height: SIZE });
      const button = make("button", { type: "button", className: "picture" }, canvas);
      button.addEventListener("click", () => savePng([canvas], fileName(this.prompt, Number(button.dataset.seed))));
      this.pictures.append(button);
    }
  }

  /** Shows the picture of a place, grown from a seed. */
  show(place: number, seed: number, pixels: Uint8ClampedArray<ArrayBuffer>): void {
    const button = this.pictures.children[place] as HTMLButtonElement;
    show(button.firstElementChild as HTMLCanvasElement, pixels);
    button.dataset.seed = `${seed}`;
    button.title = `Seed ${seed}: save as PNG`;
    button.setAttribute("aria-label", `${this.prompt}, seed ${seed}: save as PNG`);
    this.save.disabled = false;
  }

  /** Shows the median time of the last pictures. */
  showTime(medianMs: number, runs: number): void {
    this.time.textContent = formatMs(medianMs);
    this.note.textContent = `median of ${runs}`;
  }

  private canvases(): HTMLCanvasElement[] {
    return [...this.pictures.querySelectorAll("canvas")];
  }
}
