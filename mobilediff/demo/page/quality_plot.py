"""Plot a quality over a cost with plotly: models, Pareto front, and the rows for scale."""

from itertools import cycle

import plotly.graph_objects as go

from eval.reporting.pareto import pareto_front
from eval.reporting.tables import DAMAGED, SCALE, Cell, record_cells
from eval.schema import Record

COSTS = {
    "image (ms)": "milliseconds an image",
    "NFE": "network calls an image",
    "params (M)": "parameters (millions)",
}
PARAMETERS = "params (M)"
DISTANCES = ("Fréchet distance", "kernel distance")  # lower is better
HIGHER_IS_BETTER = (
    "class accuracy", "noun top-1", "noun top-5", "CLIP score", "precision", "recall", "density", "coverage",
)  # fmt: skip
PERCENTAGES = ("class accuracy", "noun top-1", "noun top-5")
# Okabe and Ito's colours, which colour-blind readers tell apart, and a shape each.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down")
DASHES = ("dash", "dot")
GREY = "#808080"  # is seen on white and on the dark page
LARGEST_DOT, SMALLEST_DOT = 26, 8  # pixels
LAYOUT = {
    "template": "none",
    "height": 480,
    "margin": {"l": 56, "r": 12, "t": 36, "b": 48},
    "dragmode": False,  # else a finger on the plot does not scroll the page
    "hovermode": "closest",
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, sans-serif"},
    "legend": {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top", "itemsizing": "constant"},
    "modebar": {"remove": ["select", "lasso"], "bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": GREY},
}


def row_cells(record: Record) -> dict[str, Cell]:
    """Collect all figures of a row, costs first, by column title."""
    cells = record_cells(record)
    return cells["cost"] | cells["quality"]


def plotted_qualities(records: dict[str, Record]) -> list[str]:
    """List the Fréchet distance and the other qualities that some row has, distances first."""
    others = {other.label for record in records.values() for other in record.other_distances.values()}
    titles = dict.fromkeys(title for record in records.values() for title in record_cells(record)["quality"])
    distances = [DISTANCES[0], *(title for title in titles if title in DISTANCES[1:] or title in others)]
    return distances + [title for title in titles if title in HIGHER_IS_BETTER]


def family(name: str, records: dict[str, Record]) -> str:
    """Name the shipped model that a row belongs to: the longest whose name begins the row's."""
    shipped = [other for other, record in records.items() if record.shipped and name.startswith(other)]
    return max(shipped, key=len, default="others")


def draw_plot(records: dict[str, Record], cost: str, quality: str) -> go.Figure:
    """Plot a quality over a cost; both are column titles.

    Each dot holds its row's name as custom data. The damaged images lie beyond the axis, where a note says so.
    """
    cells = {name: row_cells(record) for name, record in records.items()}
    models = {name: row for name, row in cells.items() if cost in row and quality in row and name not in SCALE}
    if not models:
        return go.Figure(layout=LAYOUT | {"title": {"text": f"No model has both {cost} and {quality}."}})
    scale = {name: row[quality] for name, row in cells.items() if name in SCALE and quality in row}
    better = -1 if quality in HIGHER_IS_BETTER else 1
    front = pareto_front({name: (row[cost].value, better * row[quality].value) for name, row in models.items()})
    figure = go.Figure()
    figure.add_scatter(
        x=[models[name][cost].value for name in front],
        y=[models[name][quality].value for name in front],
        mode="lines",
        line={"color": GREY, "width": 1},
        name="Pareto front",
        hoverinfo="skip",
    )
    families: dict[str, list[str]] = {}
    for name in models:
        families.setdefault(family(name, records), []).append(name)
    for (title, names), colour, symbol in zip(families.items(), cycle(COLOURS), cycle(SYMBOLS), strict=False):
        rows = {name: models[name] for name in names}
        figure.add_trace(_dots(rows, cost, quality, colour, symbol, _largest(models)).update(name=title))
    costs = [row[cost].value for row in models.values()]
    drawn = {name: cell for name, cell in scale.items() if name != DAMAGED}
    for (name, cell), dash in zip(drawn.items(), DASHES, strict=False):
        figure.add_trace(_scale_line(name, cell, quality, (min(costs), max(costs)), dash))
    if DAMAGED in scale:
        side = {"y": 1, "yanchor": "top"} if better > 0 else {"y": 0, "yanchor": "bottom"}
        note = f"{_value(DAMAGED, scale[DAMAGED])}, beyond the axis"
        figure.add_annotation(text=note, showarrow=False, xref="paper", yref="paper", x=1, xanchor="right", **side)
    inside = [row[quality].value for row in models.values()]
    inside += [cell.value for cell in drawn.values()]
    margin = 0.08 * (max(inside) - min(inside))
    ticks = {"tickvals": sorted(set(costs))} if cost == "NFE" else {"dtick": "D2"}
    return figure.update_layout(
        LAYOUT,
        xaxis={"type": "log", "title": {"text": COSTS[cost], "standoff": 8}, "zeroline": False, **ticks},
        yaxis={
            "title": {"text": quality, "standoff": 8},
            "range": [min(inside) - margin, max(inside) + margin],
            "tickformat": ".0%" if quality in PERCENTAGES else None,
            "zeroline": False,
        },
    )


def _largest(models: dict[str, dict[str, Cell]]) -> float:
    """Return the most parameters of any model, 1 where none were counted."""
    return max((row[PARAMETERS].value for row in models.values() if PARAMETERS in row), default=1)


def _dots(
    rows: dict[str, dict[str, Cell]], cost: str, quality: str, colour: str, symbol: str, largest: float
) -> go.Scatter:
    """Draw the models of a family, each as large as its parameters are many, with its interval."""
    ends = [
        (cell.interval.high - cell.value, cell.value - cell.interval.low) if cell.interval else (0, 0)
        for cell in (row[quality] for row in rows.values())
    ]
    above, below = zip(*ends, strict=True)
    return go.Scatter(
        x=[row[cost].value for row in rows.values()],
        y=[row[quality].value for row in rows.values()],
        error_y={"array": above, "arrayminus": below, "symmetric": False, "color": GREY, "thickness": 1, "width": 3},
        mode="markers",
        marker={
            "color": colour,
            "symbol": symbol,
            "line": {"color": GREY, "width": 1},
            "size": [row[PARAMETERS].value if PARAMETERS in row else largest for row in rows.values()],
            "sizemode": "area",
            "sizeref": largest / LARGEST_DOT**2,
            "sizemin": SMALLEST_DOT / 2,
        },
        customdata=list(rows),
        hovertext=[
            f"<b>{name}</b><br>{cost}: {row[cost].text}<br>{quality}: {row[quality].text}"
            for name, row in rows.items()
        ],
        hoverinfo="text",
    )


def _scale_line(name: str, cell: Cell, quality: str, ends: tuple[float, float], dash: str) -> go.Scatter:
    """Draw a row for scale as a line across all costs, with its value."""
    return go.Scatter(
        x=ends,
        y=[cell.value] * 2,
        mode="lines+text",
        line={"color": GREY, "dash": dash},
        name=_value(name, cell),
        showlegend=False,
        text=[_value(name, cell), ""],
        textposition="top right",
        customdata=[name] * 2,
        hovertext=f"<b>{name}</b><br>{quality}: {cell.text}",
        hoverinfo="text",
    )


def _value(name: str, cell: Cell) -> str:
    return f"{name}: {cell.text.partition(' ')[0]}"
