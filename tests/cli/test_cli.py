"""The command line, in separate processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from echo import make_world


def evoswarm(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evoswarm", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The single error line; checks for exit status 2 and no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world and its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    make_world(folder)
    done = evoswarm("run", "it.yaml", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    (folder / "summary.json").write_text(done.stdout)
    return folder


def test_run_prints_its_summary_as_one_json_object(finished: Path) -> None:
    printed = json.loads((finished / "summary.json").read_text())
    assert printed == json.loads((finished / "runs/echo/summary.json").read_text())
    assert (finished / "runs/echo/report.html").exists()


def test_run_prints_plain_lines_without_a_terminal(tmp_path: Path) -> None:
    make_world(tmp_path)
    done = evoswarm("run", "it.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("generation")]
    assert len(lines) == 5 and all(word in lines[-1] for word in ("4/4", "best", "median", "examples/s", "left"))
    assert "\x1b" not in done.stdout + done.stderr
    assert "best expert" in done.stdout and "report.html" in done.stdout


def test_validate_prints_ok_or_the_error(finished: Path) -> None:
    done = evoswarm("validate", "it.yaml", folder=finished)
    assert done.returncode == 0 and "6 experts (adapter), 100 validation and 60 test examples" in done.stdout
    line = refused(evoswarm("validate", "it.yaml", "--set", "search.poplation=3", folder=finished))
    assert "did you mean population?" in line


def test_schema_is_json(tmp_path: Path) -> None:
    schema = json.loads(evoswarm("schema", folder=tmp_path).stdout)
    assert "search" in schema["properties"]


def test_inspect_shows_sizes_and_cosines(finished: Path) -> None:
    facts = json.loads(evoswarm("inspect", "experts", "--json", folder=finished).stdout)
    assert [expert["name"] for expert in facts["experts"]] == [f"e{i}" for i in range(6)]
    assert facts["experts"][0]["parameters"] == 2 * 2 * 4 * 64 and facts["experts"][0]["rank"] == 4
    assert all(facts["cosine"][i][i] == pytest.approx(1) for i in range(6))
    assert 1 < facts["diversity"]["effective_number"] <= 6 and facts["utilities"] == []
    shown = evoswarm("inspect", "experts", "--on", "it.yaml", folder=finished).stdout
    assert all(words in shown for words in ("pairwise cosine", "orthogonal", "(base model)", "disagreement"))


def test_evaluate_agrees_with_the_run_for_recipe_adapter_and_base(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    best = finished / "runs/echo"
    measured = {
        name: json.loads(evoswarm("evaluate", "it.yaml", *how, "--split", "test", "--json", folder=finished).stdout)
        for name, how in {
            "recipe": ("--recipe", best / "recipe.json"),
            "run": ("--recipe", best),
            "adapter": ("--adapter", best / "best"),
            "base": ("--base",),
        }.items()
    }
    assert measured["run"]["utility"] == measured["recipe"]["utility"]
    assert measured["recipe"]["utility"] == measured["adapter"]["utility"] == summary["best"]["test"]
    assert measured["base"]["utility"] == summary["base"]["test"]
    assert "exactly one of" in refused(evoswarm("evaluate", "it.yaml", folder=finished))


def test_export_and_materialize_write_the_best_expert(finished: Path) -> None:
    assert evoswarm("export", "runs/echo", "-o", "exported", folder=finished).returncode == 0
    assert evoswarm("materialize", "runs/echo", "-o", "made", folder=finished).returncode == 0
    first, second = (finished / name / "adapter_model.safetensors" for name in ("exported", "made"))
    assert first.read_bytes() == second.read_bytes()
    assert {path.name for path in (finished / "exported").iterdir()} >= {"README.md", "recipe.json"}
    assert "is not empty" in refused(evoswarm("export", "runs/echo", "-o", "exported", folder=finished))
    assert "has no particle 70" in refused(
        evoswarm("materialize", "runs/echo", "-o", "other", "--particle", 70, folder=finished)
    )


def test_report_rewrites_the_same_page(finished: Path) -> None:
    page = finished / "runs/echo/report.html"
    before = page.read_bytes()
    page.unlink()
    assert evoswarm("report", "runs/echo", folder=finished).stdout.strip().endswith("report.html")
    assert page.read_bytes() == before


def test_resume_needs_a_run(tmp_path: Path, finished: Path) -> None:
    assert refused(evoswarm("resume", "nothing", folder=tmp_path))
    done = evoswarm("resume", "runs/echo", "--json", folder=finished)
    assert json.loads(done.stdout) == json.loads((finished / "summary.json").read_text())


BAD = {
    "an empty pool": ({"pool": "empty"}, "contains no expert folders"),
    "one expert": ({"pool": ["experts/e0"]}, "only one expert"),
    "a missing data file": ({"utility": {"type": "exact_match", "data": "none.json"}}, "none.json"),
    "a population of 1": ({"search": {"population": 1}}, "search.population"),
    "a rate above 1": ({"search": {"drop_particles": 1.2}}, "search.drop_particles"),
    "an output that is a file": ({"output": "echo.json"}, "cannot be written"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_clear_error_line(tmp_path: Path, case: str) -> None:
    config = make_world(tmp_path)
    (tmp_path / "empty").mkdir()
    changes, words = BAD[case]
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(config | changes))
    assert words in refused(evoswarm("run", "bad.yaml", folder=tmp_path))


def test_a_run_that_stopped_at_a_full_disk_can_be_resumed(tmp_path: Path) -> None:
    config = make_world(tmp_path)
    limit = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY)); "
        "sys.argv = ['evoswarm', 'run', 'it.yaml']; from evoswarm.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", limit], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "resume with `evoswarm resume" in refused(done)
    again = evoswarm("resume", f"runs/{config['name']}", "--json", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    undisturbed = evoswarm("run", "it.yaml", "--json", "--set", "name=other", folder=tmp_path)
    assert json.loads(again.stdout)["best"] == json.loads(undisturbed.stdout)["best"]
