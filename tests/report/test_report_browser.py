"""The page in headless Chromium: what a phone shows, and that nothing is asked of the network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from report_helpers import SCRIPT

from evoswarm.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = """
--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --hide-scrollbars --disable-dev-shm-usage
""".split()  # noqa: SIM905 shorter than a list
HOSTILE = """</td></script><script>window.owned=1</script><img src=x onerror=window.owned=1>
<svg onload=window.owned=1><iframe srcdoc="<script>parent.owned=1</script>"></iframe>{{ 7 * 7 }}"""
PROBE = """<script>
const root = document.documentElement;
const wide = [...document.querySelectorAll('main *')].filter(e => !e.closest('svg') && !e.closest('.scroll > *')
  && e.getBoundingClientRect().right > root.clientWidth + 1).map(e => e.tagName + '.' + e.className);
parent.postMessage({scroll: root.scrollWidth, client: root.clientWidth, wide, owned: !!window.owned,
  loaded: performance.getEntriesByType('resource').map(e => e.name), plots: document.querySelectorAll('svg').length,
  flat: [...document.querySelectorAll('svg')].filter(e => e.getBoundingClientRect().height < 80).length}, '*');
</script>"""
FRAME = """<!doctype html><body style="margin:0">
<iframe src="page.html" style="border:0;width:375px;height:900px"></iframe><pre id="out"></pre>
<script>onmessage = e => document.getElementById('out').textContent = JSON.stringify(e.data);</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def chromium(*arguments: str) -> str:
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *arguments]
        return subprocess.run(command, capture_output=True, check=True, timeout=240).stdout.decode()


def measured(page: str, folder: Path) -> dict:
    """What a probe in a copy of the page sees, in a frame as wide as a phone; the copy alone allows scripts."""
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (folder / "page.html").write_text(open_page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME, encoding="utf-8")
    dom = chromium("--dump-dom", "--virtual-time-budget=5000", (folder / "frame.html").as_uri())
    found = re.search(r'<pre id="out">(.+?)</pre>', dom, flags=re.DOTALL)
    assert found, dom[-500:]
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def test_a_phone_shows_the_page_without_sideways_scrolling(make_run: Callable[..., Path], tmp_path: Path):
    path = make_run(text=f"{SCRIPT.replace('alert', 'owned=alert')} {'unbroken' * 30} and")
    page = write_report(path).read_text(encoding="utf-8")
    seen = measured(page, tmp_path)
    assert seen["client"] == 375 and seen["scroll"] <= 375, seen["wide"]
    assert seen["wide"] == []
    assert seen["plots"] == len(list((path / "plots").iterdir())) and seen["flat"] == 0
    assert seen["loaded"] == [] and not seen["owned"]


def test_the_plots_of_predictions_show_on_a_phone(make_run: Callable[..., Path], tmp_path: Path):
    path = make_run(search={"type": "bayes", "max_evaluations": 30, "min_gain": 0})
    page = write_report(path).read_text(encoding="utf-8")
    assert {"calibration.png", "gains.png"} <= {file.name for file in (path / "plots").iterdir()}
    seen = measured(page, tmp_path)
    assert seen["client"] == 375 and seen["scroll"] <= 375 and seen["wide"] == []
    assert seen["plots"] == len(list((path / "plots").iterdir())) and seen["flat"] == 0


def test_the_page_draws_in_a_browser(make_run: Callable[..., Path], tmp_path: Path):
    page, picture = write_report(make_run()), tmp_path / "page.png"
    chromium("--window-size=1200,2000", f"--screenshot={picture}", page.as_uri())
    assert picture.stat().st_size > 30_000


def test_hostile_answers_of_a_model_run_nothing(make_run: Callable[..., Path], tmp_path: Path):
    path = make_run()
    outcomes = path / "outcomes/final.jsonl"
    lines = [json.loads(line) for line in outcomes.read_text(encoding="utf-8").splitlines()]
    for line in lines:  # lost examples are shown with both answers
        won = line.get("who") == "best_expert"
        line["predictions"] = [HOSTILE for _ in line["predictions"]]
        line["scores"] = [float(won) for _ in line["scores"]]
    outcomes.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    page = write_report(path).read_text(encoding="utf-8")
    assert "onerror=window.owned=1" in page  # it is shown
    seen = measured(page, tmp_path)
    assert not seen["owned"] and seen["loaded"] == []
