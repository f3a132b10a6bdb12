"""The report of a run: one self-contained HTML page and PNG plots.

Needs only the run directory, not an engine or a cluster; the run may be unfinished. The same run directory gives the
same bytes.
"""

from __future__ import annotations

from pathlib import Path

from evoswarm.loop.directory import RunDirectory
from evoswarm.place import is_url
from evoswarm.report.page import render_page
from evoswarm.report.plots import all_plots
from evoswarm.report.read import load_run
from evoswarm.storage.cache import local_copy
from evoswarm.storage.mirror import publish


def write_report(run_dir: Path) -> Path:
    """Write `report.html` and `plots/*.png` into a run directory, and return the path of the page.

    Raises:
        UserError: there is no run, or one of its files is damaged.
    """
    run = load_run(run_dir)
    directory = RunDirectory(run_dir)
    plots = all_plots(run)
    for plot in plots.values():
        directory.write(f"{directory.plots.name}/{plot.name}.png", plot.png)
    directory.write(directory.report.name, render_page(run, plots).encode("utf-8", errors="replace"))
    return directory.report


def write_report_at(place: str) -> str:
    """`write_report` for a run directory or its URL; returns the location of the page."""
    if not is_url(place):
        return str(write_report(Path(place)))
    folder = local_copy(place, light=True)
    page = write_report(folder)
    for written in (page, folder / RunDirectory(folder).plots.name):
        publish(written, folder, place.rstrip("/"))
    return f"{place.rstrip('/')}/{page.name}"


__all__ = ["write_report", "write_report_at"]
