/** Fits the frame of a page of the same site, in which this page may stand. */

/** Gives the frame the height of the page, now and whenever that changes, and leaves the header to the page around. */
export function fitFrame(): void {
  const frame = window.frameElement as HTMLElement | null;
  if (!frame) return;
  const root = document.documentElement;
  root.dataset.framed = "";
  const fit = () => {
    const border = frame.offsetHeight - frame.clientHeight;
    frame.style.height = `${Math.ceil(root.getBoundingClientRect().height) + border}px`;
  };
  new ResizeObserver(fit).observe(root);
}
