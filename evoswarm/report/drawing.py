"""Renders plots as SVG for the page and as PNG files: one style, the same bytes every time."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colors, which are safe for color blindness. On the page, each becomes a CSS variable, so that plots
# follow the light or dark theme.
INK, FAINT, GRID, PAPER = "#1f2328", "#8a9099", "#e3e6ea", "#fffffe"
BEST, WORST, EXTRA, CALM = "#0072b2", "#d55e00", "#e69f00", "#009e73"
VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--grid",
    PAPER: "--card",
    BEST: "--best",
    WORST: "--worst",
    EXTRA: "--extra",
    CALM: "--calm",
}
WIDTH_INCHES = 4.0
"""About the width of a phone, so that 10 points of text are 10 points there and larger on a desktop."""
PNG_DPI = 240
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.6,
    "path.simplify": False,
}


@dataclass(frozen=True)
class Plot:
    """A finished plot: `alt` is a description in words, `svg` is for the page, `png` for a file."""

    name: str
    alt: str
    svg: Markup
    png: bytes


def render(name: str, draw: Callable[[Axes], str], *, height: float = 3.1) -> Plot:
    """Draw a plot. `draw` draws into the axes and returns the alternative text; `height` is in inches."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | {"svg.hashsalt": f"evoswarm {name}"})
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        alt = draw(figure.add_subplot())
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", facecolor="none", metadata={"Date": None})
        figure.set_layout_engine("none")  # it is laid out by now
        figure.savefig(png, format="png", facecolor="white", dpi=PNG_DPI, metadata={"Software": None})
    return Plot(name, alt, inline(svg.getvalue(), alt), png.getvalue())


def inline(svg: str, alt: str) -> Markup:
    """Matplotlib's SVG for embedding in an HTML page: themed, named, without group ids and metadata."""
    svg = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    view = re.search(r'viewBox="([\d. ]+)"', svg)
    assert view is not None
    body = svg[svg.index(">") + 1 :]
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href=", "href=")
    for color, variable in VARIABLES.items():
        body = body.replace(color, f"var({variable})")
    return Markup(f'<svg viewBox="{view[1]}" role="img" aria-label="{escape(alt)}">') + Markup(body.strip())  # nosec


def plain(text: str, limit: int = 22) -> str:
    """A label for a plot: one short line without control characters."""
    text = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def legend(axes: Axes, *, columns: int) -> None:
    """Add a legend under the plot."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.19), ncols=columns, columnspacing=1.2, borderpad=0)
