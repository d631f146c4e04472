"""Plot the time of each kind of layer beside its floors."""

from pathlib import Path

import matplotlib.pyplot as plt

from eval.reporting.plots import RESOLUTION, save_figure
from mobilediff.compression.layers import KINDS
from mobilediff.compression.profiled import Profile

BARS = {"median_ms": "measured", "arithmetic_floor_ms": "arithmetic floor", "bytes_floor_ms": "bytes floor"}
COLOURS = ("tab:blue", "tab:orange", "tab:green")
HEIGHT = 0.27  # of a bar; kinds are 1 apart


def draw_profile(profile: Profile, file: str | Path) -> None:
    """Draw the milliseconds of each kind of layer and its floors as bars, a panel a runtime, as PNG."""
    runtimes = profile.runtimes
    kinds = [kind for kind in KINDS if any(kind in one.by_kind() for one in runtimes.values())]
    size = 2 + 3.2 * len(runtimes), 1.2 + 0.42 * len(kinds)
    figure, panels = plt.subplots(1, len(runtimes), figsize=size, dpi=RESOLUTION, sharey=True, squeeze=False)
    for axes, (runtime, one) in zip(panels[0], runtimes.items(), strict=True):
        totals = one.by_kind()
        for index, (name, label) in enumerate(BARS.items()):
            places = [place + (index - 1) * HEIGHT for place in range(len(kinds))]
            values = [getattr(totals[kind], name) if kind in totals else 0 for kind in kinds]
            axes.barh(places, values, HEIGHT, color=COLOURS[index], label=label)
        image = f"image {one.image_ms:.1f} ms, {one.times_arithmetic_floor:.1f} times the arithmetic floor"
        axes.set_title(f"{runtime}: {image}", fontsize=7)
        axes.set_xlabel("ms", fontsize=8)
        axes.tick_params(labelsize=8)
    panels[0][0].set_yticks(range(len(kinds)), kinds)
    panels[0][0].invert_yaxis()
    panels[0][-1].legend(fontsize=7)
    save_figure(figure, file)
