"""The `evoswarm` command: registers the subcommands and prints errors."""

from __future__ import annotations

import sys

import typer

from evoswarm.cli import compare, experts, jobs, plan, port, report, reweigh, route, run, serve, toy, training, tune
from evoswarm.errors import STORAGE_ERRORS, ClusterError, Stopped, UserError

app = typer.Typer(
    help="Evolve a population of LLM experts in weight space, without gradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(run.run, run.resume, run.validate, run.schema, plan.plan),
    *(jobs.submit, jobs.status, jobs.logs, jobs.stop, jobs.list_),
    *(experts.inspect, experts.evaluate, compare.compare, tune.tune),
    *(report.report, report.export, report.materialize, reweigh.reweigh, port.port, route.route),
    *(serve.serve, serve.chat, toy.demo),
):
    app.command(command.__name__.rstrip("_"))(command)
app.add_typer(training.experts, name="experts")
app.add_typer(toy.toy, name="toy")

EXIT_USER, EXIT_CLUSTER, EXIT_STOPPED = 2, 3, 130


def main() -> None:
    """Run the command line. User errors and unusable files print one line on standard error and exit with status 2."""
    try:
        app()
    except UserError as error:
        _fail(f"error: {error}", EXIT_USER)
    except ClusterError as error:
        _fail(f"error: {error}", EXIT_CLUSTER)
    except Stopped as error:
        _stopped(str(error) or "stopped")
    except SystemExit as end:
        if end.code != EXIT_STOPPED:  # typer's status after Ctrl-C
            raise
        _stopped("stopped; rerun the command")
    except KeyboardInterrupt:
        _stopped("stopped; rerun the command")
    except OSError as error:
        if error.filename is None and error.errno not in STORAGE_ERRORS:
            raise
        _fail(f"error: {error.filename or 'a file cannot be written'}: {error.strerror}", EXIT_USER)


def _fail(text: str, status: int) -> None:
    print(text, file=sys.stderr)
    sys.exit(status)


def _stopped(text: str) -> None:
    from evoswarm.launch.signals import leave

    print(text, file=sys.stderr)
    leave(EXIT_STOPPED)


if __name__ == "__main__":
    main()
