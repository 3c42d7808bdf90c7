"""Draws docs/images/*.svg from the rows in benchmarks/results; needs matplotlib (`pip install eckart[bench]`).

    python -m benchmarks.plots

A picture names in its metadata a digest of the numbers it shows, by which a test sees whether the rows have changed.
Lines and letters are of colours that can be read on white and on black, and the ground is transparent.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.rows import results
from benchmarks.pages.tables import selected

IMAGES = Path(__file__).parent.parent / "docs/images"
GREY = "#7d7d7d"
COLOURS = ("#d9730d", "#2f80d0", "#2e9e63", "#b5519c", "#a08300", "#6f6fd8", "#d14b4b")

Points = list[tuple[float, float]]
Draw = Callable[[Any, Mapping[str, Points]], None]


@dataclass(frozen=True)
class Picture:
    """A picture: its numbers by the name of a line or point, and how they are drawn on matplotlib's axes."""

    numbers: Callable[[], dict[str, Points]]
    draw: Draw
    height: float = 3.2

    @property
    def digest(self) -> str:
        """Of the numbers."""
        return hashlib.sha256(json.dumps(self.numbers(), sort_keys=True).encode()).hexdigest()[:16]


def quality_against_size() -> dict[str, Points]:
    """Perplexity of smollm2 at shares of its linear parameters."""
    found: dict[str, Points] = {}
    select = {"benchmark": "compressors.methods", "model": "smollm2", "run": "by size"}
    for row in selected(results("compressors"), select):
        if row["of"] != "bytes":
            found.setdefault(row["method"], []).append((row["keep"], row["scores"]["news"]["value"]))
    return found


def draw_quality(axes: Any, numbers: Mapping[str, Points]) -> None:
    ((_, dense),) = numbers["dense"]
    axes.axhline(dense, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("dense", (0.5, dense), (6, 5), textcoords="offset points", va="center", color=GREY, fontsize=8)
    lines = {name: points for name, points in numbers.items() if name != "dense"}
    for points, colour in zip(lines.values(), COLOURS, strict=True):
        shares, values = zip(*points, strict=True)
        axes.plot(shares, values, marker="o", markersize=3, color=colour, linewidth=1.4)
    axes.set(yscale="log", xlim=(0.92, 0.40), xlabel="linear parameters kept", ylabel="perplexity on news")
    axes.set_xticks([0.9, 0.8, 0.7, 0.6, 0.5], ["90 %", "80 %", "70 %", "60 %", "50 %"])
    axes.set_yticks([30, 100, 300, 1000], ["30", "100", "300", "1000"])
    axes.minorticks_off()
    _labels(axes, [(points[-1], name) for name, points in lines.items()], left=False)


def learned_and_forgotten() -> dict[str, Points]:
    """What adapters learn of the sentiment of sentences, and what they forget by it."""
    select = {"benchmark": "adapters.tasks", "task": "sst2"}
    return {
        row["method"]: [(row["forgotten"], row["score"])]
        for row in selected(results("adapters"), select)
        if not row["method"].startswith("peft:")
    }


def draw_adapters(axes: Any, numbers: Mapping[str, Points]) -> None:
    for name, ((forgotten, accuracy),) in numbers.items():
        axes.plot(forgotten, accuracy, "o", markersize=4, color=COLOURS[1 if name == "lora" else 0])
    axes.set(xlabel="drift of other sentences (forgotten)", ylabel="accuracy (learned)", xlim=(-0.14, 0.82))
    _labels(axes, [(point, name) for name, (point,) in numbers.items()])


def scaled_back() -> dict[str, Points]:
    """Accuracy and drift as the intruder dimensions of a training, or all of its change, are scaled."""
    found: dict[str, Points] = {"intruders alone": [], "all of the change": []}
    select = {"benchmark": "diagnostics.intruders", "rank": 1, "rate": 0.01}
    for row in selected(results("diagnostics"), select):
        for name, kind in zip(found, ("intruders", "change"), strict=True):
            found[name].append((float(row[kind]["drift"]), row[kind]["accuracy"]))
    return found


def draw_intruders(axes: Any, numbers: Mapping[str, Points]) -> None:
    for (name, points), colour in zip(numbers.items(), COLOURS, strict=False):
        drift, accuracy = zip(*points, strict=True)
        axes.plot(drift, accuracy, marker="o", markersize=3.5, color=colour, linewidth=1.4, label=name)
    start = numbers["intruders alone"][0]
    axes.annotate("as trained", start, (4, -12), textcoords="offset points", ha="center", color=GREY, fontsize=8)
    axes.set(xlabel="drift of other sentences (forgotten)", ylabel="accuracy (learned)")
    axes.legend(frameon=False, labelcolor="linecolor", loc="lower right")


def labels_asked_for() -> dict[str, Points]:
    """Accuracy by the number of labels, by how they were chosen."""
    shown = ("random", "entropy", "k-centre", "badge", "kecor", "kecor, ten times the entropy")
    found = {}
    for row in selected(results("diagnostics"), {"benchmark": "diagnostics.kecor", "part": None, "arm": shown}):
        counts = [row["first"] + row["picks"] * k for k in range(row["rounds"] + 1)]
        found[row["arm"]] = list(zip(counts, row["curve"], strict=True))
    return found


def draw_labels(axes: Any, numbers: Mapping[str, Points]) -> None:
    for (name, points), colour in zip(numbers.items(), COLOURS, strict=False):
        counts, accuracy = zip(*points, strict=True)
        axes.plot(counts, accuracy, marker="o", markersize=3.5, color=colour, linewidth=1.4, label=name)
    axes.set(xlabel="labels", ylabel="accuracy")
    axes.legend(frameon=False, labelcolor="linecolor", loc="lower right")


def sugar() -> dict[str, Points]:
    """The share of sugar in spectra of a fermentation with broken bands, and sugar as a laboratory measured it."""
    found: dict[str, Points] = {}
    for row in selected(results("estimators"), {"benchmark": "estimators.fermentation", "method": "unmixing-l21"}):
        if row["sound"] != "all":
            found[f"share, {row['arm']}"] = row["curve"]
            found["sugar, by chromatography"] = row["measured"]
    return found


def draw_sugar(axes: Any, numbers: Mapping[str, Points]) -> None:
    shares = {name: points for name, points in numbers.items() if name.startswith("share")}
    for (name, points), colour in zip(shares.items(), COLOURS, strict=False):
        hours, share = zip(*points, strict=True)
        axes.plot(hours, share, color=colour, linewidth=1.4, label=name)
    hours, grams = zip(*numbers["sugar, by chromatography"], strict=True)
    axes.plot([], [], "o", markersize=3.5, color=GREY, label="sugar, by chromatography")
    axes.set(xlabel="hours", ylabel="share", ylim=(-0.03, 1.03))
    axes.legend(frameon=False, labelcolor="linecolor", loc="upper right")
    other = axes.twinx()
    other.plot(hours, grams, "o", markersize=3.5, color=GREY)
    other.set(ylabel="grams a litre", ylim=(-0.03 * max(grams), 1.03 * max(grams)))
    other.tick_params(colors=GREY)
    other.yaxis.label.set_color(GREY)
    other.spines[:].set_visible(False)


def delays() -> dict[str, Points]:
    """Accuracy on EEG without delays and with those that were chosen, and its standard error."""
    select = {"benchmark": "estimators.trials", "part": "accuracy", "arm": "augmented-covariance"}
    return {
        row["task"]: [(row[name], row["standard error"]) for name in ("plain", "chosen")]
        for row in selected(results("estimators"), select)
    }


def draw_delays(axes: Any, numbers: Mapping[str, Points]) -> None:
    for i, (side, name) in enumerate(((-0.08, "covariances of channels"), (0.08, "with delays"))):
        heights, errors = zip(*(points[i] for points in numbers.values()), strict=True)
        places = [k + side for k in range(len(numbers))]
        axes.errorbar(places, heights, errors, fmt="o", markersize=4, color=COLOURS[1 - i], linewidth=1.2, label=name)
    # Long names in one word, broken before their second capital.
    axes.set_xticks(range(len(numbers)), [re.sub(r"(?<=[a-z])(?=[A-Z])", "\n", name, count=1) for name in numbers])
    axes.set(ylabel="accuracy", xlim=(-0.5, len(numbers) - 0.5), ylim=(0.3, 0.82))
    axes.legend(frameon=False, labelcolor="linecolor", loc="upper center", ncols=2)


def ratings_told() -> dict[str, Points]:
    """Errors at ratings that were held out, by the processor seconds of a fit, with more and more factors."""
    lines = {"alternating, cg": "biases and 10, 20, 50 factors", "Soft-Impute": "Soft-Impute, rank 20, 50"}
    found: dict[str, Points] = {}
    for row in selected(results("estimators"), {"benchmark": "estimators.ratings", "part": "folds"}):
        if not row["arm"].startswith("alternating, cholesky"):
            name = next((name for start, name in lines.items() if row["arm"].startswith(start)), row["arm"])
            found.setdefault(name, []).append((row["seconds"], row["rmse"]))
    return found


def draw_ratings(axes: Any, numbers: Mapping[str, Points]) -> None:
    for (name, points), colour in zip(numbers.items(), COLOURS, strict=False):
        seconds, errors = zip(*points, strict=True)
        axes.plot(seconds, errors, marker="o", markersize=4, color=colour, linewidth=1.2, label=name)
    axes.set(xscale="log", xlabel="processor seconds of a fit", ylabel="error in stars")
    axes.legend(frameon=False, labelcolor="linecolor", loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0)


def sections_said() -> dict[str, Points]:
    """Accuracy of the sections of packages by how many are known, by what they are said from."""
    found: dict[str, Points] = {}
    for row in selected(results("sketching"), {"benchmark": "sketching.sections"}):
        found.setdefault(row["arm"], []).append((row["known"], row["accuracy"]))
    return found


def draw_sections(axes: Any, numbers: Mapping[str, Points]) -> None:
    for (name, points), colour in zip(numbers.items(), COLOURS, strict=False):
        known, accuracy = zip(*points, strict=True)
        axes.plot(known, accuracy, marker="o", markersize=3.5, color=colour, linewidth=1.4, label=name)
    axes.set(xscale="log", xlabel="packages whose section is known", ylabel="right of 10,000 others", ylim=(0, None))
    axes.set_xticks([300, 1000, 3000, 10000], ["300", "1000", "3000", "10,000"])
    axes.minorticks_off()
    axes.legend(frameon=False, labelcolor="linecolor", loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0)


def by_logarithms() -> dict[str, Points]:
    """Medians over the parameter of six proximities, plain and as logarithms, by graph."""
    found: dict[str, Points] = {}
    for row in selected(results("kernels"), {"benchmark": "kernels.graphs", "part": "clusters"}):
        found.setdefault(row["graph"], []).append((row["plain median"], row["log median"]))
    return found


def draw_logarithms(axes: Any, numbers: Mapping[str, Points]) -> None:
    axes.plot([-0.1, 1.05], [-0.1, 1.05], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    for (name, points), colour in zip(numbers.items(), COLOURS, strict=False):
        plain, logarithms = zip(*points, strict=True)
        axes.plot(plain, logarithms, "o", markersize=5, alpha=0.8, color=colour, label=name)
    axes.set(xlabel="right by the proximity itself", ylabel="right by its logarithm", aspect="equal")
    axes.legend(frameon=False, labelcolor="linecolor", loc="center left", bbox_to_anchor=(1.02, 0.5))


def growth_of_time() -> dict[str, Points]:
    """Processor seconds of each method by how often the smallest number of rows, edges or entries."""
    select = {"benchmark": "linalg.growth", "part": "growth", "by": ("rows", "edges", "entries")}
    return {
        row["method"]: [(n / row["first"], seconds) for n, seconds in zip(row["sizes"], row["seconds"], strict=True)]
        for row in selected(results("estimators"), select)
    }


def draw_growth(axes: Any, numbers: Mapping[str, Points]) -> None:
    for at, (name, points) in enumerate(numbers.items()):
        times, seconds = zip(*points, strict=True)
        style: Any = "-" if at < len(COLOURS) else (0, (4, 2))
        colour = COLOURS[at % len(COLOURS)]
        axes.plot(times, seconds, marker="o", markersize=3, color=colour, linewidth=1.2, linestyle=style, label=name)
    low = min(seconds for points in numbers.values() for _, seconds in points)
    axes.plot([1, 16], [low, 16 * low], color=GREY, linewidth=1, linestyle=(0, (1, 3)), label="in proportion")
    axes.set(xscale="log", yscale="log", xlabel="times the smallest size", ylabel="processor seconds")
    axes.legend(frameon=False, labelcolor="linecolor", fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def two_days() -> dict[str, Points]:
    """Two days of electricity demand of which every fifth half-hour is known, and what is said of the others."""
    select = {"benchmark": "kernels.multiple", "part": "days", "arm": "held, smooth and rough"}
    (row,) = selected(results("kernels"), select)
    hours, wide = row["hours"], [1.96 * sd for sd in row["deviations"]]
    each = list(zip(hours, row["demand"], row["known"], strict=True))
    return {
        "said": list(zip(hours, row["means"], strict=True)),
        "low": [(t, mean - bar) for t, mean, bar in zip(hours, row["means"], wide, strict=True)],
        "high": [(t, mean + bar) for t, mean, bar in zip(hours, row["means"], wide, strict=True)],
        "known": [(t, y) for t, y, known in each if known],
        "hidden": [(t, y) for t, y, known in each if not known],
    }


def draw_days(axes: Any, numbers: Mapping[str, Points]) -> None:
    hours, low, high = ([p[i] for p in numbers[name]] for name, i in (("low", 0), ("low", 1), ("high", 1)))
    axes.fill_between(hours, low, high, color=COLOURS[1], alpha=0.25, linewidth=0)
    axes.plot(hours, [p[1] for p in numbers["said"]], color=COLOURS[1], linewidth=1.4, label="said, with bars of 95 %")
    for name, style in (
        ("hidden", {"markersize": 2.5, "color": GREY}),
        ("known", {"markersize": 4.5, "color": COLOURS[0]}),
    ):
        axes.plot(*zip(*numbers[name], strict=True), "o", label=name, **style)
    axes.set(xlabel="hours", ylabel="demand, GW", xticks=range(0, 49, 6))
    axes.legend(frameon=False, labelcolor="linecolor", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _labels(axes: Any, places: Sequence[tuple[tuple[float, float], str]], left: bool = True) -> None:
    """Names beside points, each on the first side where it covers neither a name nor a point; on the left if `left`."""
    axes.figure.canvas.draw()
    scale = axes.figure.dpi / 72
    dots = [axes.transData.transform(point) / scale for point, _ in places]
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in dots]
    for (x, y), (point, name) in zip(dots, places, strict=True):
        width, height = 4.6 * len(name), 8.0
        sides = [(5.0, 0.0), *([(-5.0 - width, 0.0), (-width / 2, 8.0), (-width / 2, -8.0)] if left else [])]
        sides += [(5.0, up) for up in (8.0, -8.0, 14.0, -14.0, 21.0, -21.0)]
        boxes = [(x + dx, y + dy - height / 2, x + dx + width, y + dy + height / 2) for dx, dy in sides]
        free = [i for i, box in enumerate(boxes) if not any(_meet(box, other) for other in taken)]
        best = free[0] if free else 0
        taken.append(boxes[best])
        axes.annotate(name, point, sides[best], textcoords="offset points", va="center", color=GREY, fontsize=8)


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


PICTURES = {
    "quality-against-size": Picture(quality_against_size, draw_quality),
    "learned-and-forgotten": Picture(learned_and_forgotten, draw_adapters, 4.4),
    "intruders-scaled-back": Picture(scaled_back, draw_intruders),
    "labels-asked-for": Picture(labels_asked_for, draw_labels, 3.6),
    "sugar": Picture(sugar, draw_sugar),
    "ratings-told": Picture(ratings_told, draw_ratings),
    "delays": Picture(delays, draw_delays),
    "sections-said": Picture(sections_said, draw_sections),
    "logarithms-of-proximities": Picture(by_logarithms, draw_logarithms, 3.6),
    "growth-of-time": Picture(growth_of_time, draw_growth, 3.6),
    "two-days": Picture(two_days, draw_days),
}


def main() -> None:
    import matplotlib.pyplot as plt

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "eckart",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": GREY,
        "axes.edgecolor": GREY,
        "axes.labelcolor": GREY,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    IMAGES.mkdir(exist_ok=True)
    for name, picture in PICTURES.items():
        with plt.rc_context(style):
            figure, axes = plt.subplots(figsize=(6.0, picture.height), layout="constrained")
            picture.draw(axes, picture.numbers())
            about = {"Date": None, "Creator": None, "Description": f"benchmarks.plots {picture.digest}"}
            figure.savefig(IMAGES / f"{name}.svg", transparent=True, metadata=about)
            plt.close(figure)


if __name__ == "__main__":
    main()
