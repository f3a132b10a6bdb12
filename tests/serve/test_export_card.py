"""What `evoswarm export` says about weights of another form than those of the run."""

from __future__ import annotations

from pathlib import Path

from serve_helpers import finished_run
from typer.testing import CliRunner

from evoswarm.cli.main import app


def test_the_card_describes_what_was_written(tmp_path: Path) -> None:
    run_dir = finished_run(tmp_path)
    for name, options in {"merged": ["--merged"], "rank": ["--rank", "2"], "plain": []}.items():
        done = CliRunner().invoke(app, ["export", str(run_dir), "-o", str(tmp_path / name), *options])
        assert done.exit_code == 0 and (tmp_path / name / "recipe.json").exists(), done.output
    merged, rank, plain = ((tmp_path / name / "README.md").read_text() for name in ("merged", "rank", "plain"))
    assert 'library_name: "transformers"' in merged and "PeftModel" not in merged
    assert "PeftModel" in rank and "truncated to rank 2, which keeps " in rank
    assert plain == (run_dir / "best" / "README.md").read_text()
