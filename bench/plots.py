"""Plots of what compare.py measured: time per element, and the share of the machine's limit, over the number of classes.

Run: python bench/plots.py bench/results/float32-1-thread.csv (compare.py does so at its end). The plots lie beside the CSV.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, PercentFormatter, StrMethodFormatter

# Okabe and Ito's colours, which people see apart whatever their colour vision; and markers, for print.
STYLE = {
    "crossent": ("#D55E00", "o"),
    "PyTorch": ("#0072B2", "s"),
    "torch.compile": ("#56B4E9", "D"),
    "JAX": ("#009E73", "^"),
    "ONNX Runtime": ("#CC79A7", "v"),
    "SciPy": ("#999999", "P"),
    "NumPy": ("#E69F00", "X"),
}
TITLES = {
    "log_softmax": "log_softmax",
    "softmax": "softmax",
    "cross_entropy": "cross_entropy: loss alone",
    "cross_entropy_value_and_grad": "cross_entropy: loss and gradient",
}
LIMIT = "limit of the machine"
FEWEST_ELEMENTS = 1 << 17  # smaller arrays measure the cost of a call

Row = dict[str, str]


def read(path: Path) -> tuple[dict[str, str], list[Row]]:
    with path.open(newline="") as file:
        context = json.loads(file.readline().removeprefix("# "))
        return context, list(csv.DictReader(file))


def series(rows: list[Row], function: str, library: str) -> list[tuple[int, Row]]:
    """(classes, row) of the arrays with contiguous classes, the output reused where the library can do so."""
    best: dict[int, Row] = {}
    for row in rows:
        if row["function"] != function or row["library"] != library or not row["shape"].replace("x", "").isdigit():
            continue
        classes = int(row["shape"].split("x")[-1])
        large = float(row["seconds"]) / float(row["ns_per_element"]) * 1e9 >= FEWEST_ELEMENTS
        if large and (classes not in best or row["output"] == "reused"):
            best[classes] = row
    return sorted(best.items())


def label_axes(axes: Axes, classes: set[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(sorted(classes), [f"{c:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") for c in sorted(classes)])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw(path: Path, title: str, y_label: str, context: dict[str, str], rows: list[Row], value: str) -> Path:
    """One panel a function, one line a library; `value` is the column of the table."""
    functions = [name for name in TITLES if any(row["function"] == name for row in rows)]
    columns = min(2, len(functions))
    lines = -(-len(functions) // columns)
    figure, panels = plt.subplots(
        lines, columns, figsize=(5.2 * columns, 3.5 * lines + 1.3), squeeze=False, sharey=True, layout="constrained"
    )
    handles = {}
    for axes, function in zip(panels.flat, functions, strict=False):
        classes: set[int] = set()
        for library, (colour, marker) in STYLE.items():
            points = [(c, row) for c, row in series(rows, function, library) if row[value]]
            if not points:
                continue
            ours = library == "crossent"
            (handles[library],) = axes.plot(
                [c for c, _ in points],
                [float(row[value]) for _, row in points],
                color=colour,
                marker=marker,
                markersize=7 if ours else 5,
                linewidth=2.6 if ours else 1.4,
                zorder=3 if ours else 2,
            )
            classes |= {c for c, _ in points}
            if ours:
                draw_limit(axes, points, value, handles)
        axes.set_title(TITLES[function], fontsize=11, loc="left")
        label_axes(axes, classes)
    for axes in panels.flat[len(functions) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel(y_label)
    for axes in panels[-1]:
        axes.set_xlabel("classes")
    scale(panels[0, 0], value)
    threads = context["threads"]
    figure.suptitle(
        f"{title}\n{context['machine']}, {context['simd']}, {context['dtype']}, "
        f"{threads} thread{'s' if threads != '1' else ''}; outputs reused where the library can",
        fontsize=11,
    )
    names = sorted(handles, key=[*STYLE, LIMIT].index)
    figure.legend([handles[name] for name in names], names, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def draw_limit(axes: Axes, points: list[tuple[int, Row]], value: str, handles: dict) -> None:
    limits = [(c, row) for c, row in points if row["limit_seconds"]]
    if not limits:
        return
    if value == "share_of_limit":
        heights = [1.0 for _ in limits]
    else:
        heights = [float(row[value]) * float(row["limit_seconds"]) / float(row["seconds"]) for _, row in limits]
    (handles[LIMIT],) = axes.plot([c for c, _ in limits], heights, color="black", linestyle="--", linewidth=1.2)


def scale(axes: Axes, value: str) -> None:
    axes.set_yscale("log")
    if value == "share_of_limit":
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        axes.set_yticks([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1])
    else:
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10, 20])
    axes.yaxis.set_minor_formatter(NullFormatter())


def plot(path: Path) -> list[Path]:
    """Draws both plots of a CSV file; the second needs a measured limit."""
    context, rows = read(path)
    if not any(series(rows, function, "crossent") for function in TITLES):
        return []
    stem = path.with_suffix("")
    made = [
        draw(
            Path(f"{stem}-time.png"),
            "Time per element (lower is better)",
            "ns per element",
            context,
            rows,
            "ns_per_element",
        )
    ]
    if any(row["share_of_limit"] for row in rows):
        made.append(
            draw(
                Path(f"{stem}-limit.png"),
                "Share of the machine's limit (higher is better)",
                "limit / time taken",
                context,
                rows,
                "share_of_limit",
            )
        )
    return made


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        for made_path in plot(Path(argument)):
            print(made_path)
