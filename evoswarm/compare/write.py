"""Writes a comparison as markdown, one HTML page with plots, and JSON."""

from __future__ import annotations

from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes

from evoswarm.loop.directory import RunDirectory
from evoswarm.report.drawing import Plot, legend, plain, render
from evoswarm.report.statistics import Interval

COLORS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#8a9099")
SHOWN = ("best_expert", "greedy_soup", "random_search")
"""The references whose columns fit on a page."""
TITLES = [f"over {reference.replace('_', ' ')}" for reference in SHOWN]


def write_comparison(directory: RunDirectory, summary: dict[str, Any]) -> None:
    """Write `compare.json`, `compare.md`, `compare.html` and `plots/*.png` into a folder."""
    drawn = {target: _plot(target, data) for target, data in summary["targets"].items()}
    plots = {target: plot for target, plot in drawn.items() if plot is not None}
    for plot in plots.values():
        directory.write(f"plots/{plot.name}.png", plot.png)
    directory.write("compare.md", markdown(summary).encode())
    loader = PackageLoader("evoswarm", "compare")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    values = {"introduction": introduction(summary), "tables": tables(summary), "methods": summary["methods"]}
    page = environment.get_template("compare.html.j2").render(summary=summary, plots=plots, **values)
    directory.write("compare.html", page.encode("utf-8", errors="replace"))
    directory.write_json("compare.json", summary)


def tables(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Each table as a title, a header, lines of cells, and what follows from them."""
    found = []
    for target, data in summary["targets"].items():
        header = ["method", f"{data['split']} utility", *TITLES, "validation", "evaluations", "seconds"]
        lines = []
        for line in data["lines"]:
            validation = "-" if line["validation"] is None else f"{line['validation']:.3f}"
            lines.append([*_cells(line), validation, f"{line['evaluations']:.0f}", f"{line['seconds']:.1f}"])
        found.append({"title": target, "header": header, "lines": lines, "verdict": data["verdict"]})
    if summary["overall"]:
        header, lines = ["method", "mean of the targets", *TITLES], [_cells(line) for line in summary["overall"]]
        found.append({"title": "all targets", "header": header, "lines": lines, "verdict": summary["verdict"]})
    return found


def _cells(line: dict[str, Any]) -> list[str]:
    utility, gains = line["utility"], [line[f"over_{reference}"] for reference in SHOWN]
    mean = str(Interval(**utility)) if utility else "-"
    return [line["method"], mean, *(Interval(**gain).signed if gain else "-" for gain in gains)]


def markdown(summary: dict[str, Any]) -> str:
    """The comparison as markdown."""
    lines = [f"# {summary['name']}", "", introduction(summary), ""]
    for table in tables(summary):
        lines += [f"## {table['title']}", "", _markdown_line(table["header"])]
        lines += [_markdown_line(["---"] * len(table["header"])), *map(_markdown_line, table["lines"]), ""]
        lines += [f"{table['verdict']}.", ""] if table["verdict"] else []
    lines += ["## Methods", "", *(f"- `{name}`: {what}" for name, what in summary["methods"].items()), ""]
    if summary["left_out"]:
        lines += ["Left out:", "", *(f"- `{name}` {reason}" for name, reason in summary["left_out"].items()), ""]
    if summary["failed"]:
        lines += ["Failed:", "", *(f"- {unit}: {reason}" for unit, reason in summary["failed"].items()), ""]
    return "\n".join(lines)


def introduction(summary: dict[str, Any]) -> str:
    """An explanation of the numbers."""
    redrawn = [name for name, data in summary["targets"].items() if data["redrawn"]]
    own = f" Every seed has questions of its own ({', '.join(redrawn)})." if redrawn else ""
    return (
        f"At most {summary['budget']} evaluations per method, including those of the initial experts; seeds "
        f"{', '.join(map(str, summary['seeds']))}. Everything is chosen on validation. The test split is read once, at "
        f"the end.{own} Intervals: 95%, bootstrap over seeds and examples, paired for gains."
    )


def _markdown_line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plot(target: str, data: dict[str, Any]) -> Plot | None:
    curves = {name: curve for name, curve in data["curves"].items() if curve}
    if not curves:
        return None
    lines = sum(len(curve) > 1 for curve in curves.values())
    return render(f"compare_{target}", partial(_draw, target=target, curves=curves), height=3.0 + 0.09 * lines)


def _draw(axes: Axes, *, target: str, curves: dict[str, list[list[float]]]) -> str:
    styles = ("-", "--", ":")
    for k, (name, curve) in enumerate(curves.items()):
        points = list(zip(*curve, strict=True))
        color, style = COLORS[k % len(COLORS)], styles[k // len(COLORS) % len(styles)]
        mark = "o" if len(curve) == 1 else None
        axes.step(*points, where="post", color=color, linestyle=style, label=plain(name), linewidth=1.3, marker=mark)
    axes.set_xlabel("evaluations")
    axes.set_ylabel("best utility on validation")
    legend(axes, columns=2)
    return f"Best validation utility so far against evaluations on {target}, mean over seeds: {', '.join(curves)}."
