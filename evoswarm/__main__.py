"""The command `evoswarm`, also as `python -m evoswarm`."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command line. Ctrl-C ends it without a traceback while it still loads its modules, too."""
    try:
        from evoswarm.cli.main import main as run
    except KeyboardInterrupt:
        os.write(2, b"stopped; rerun the command\n")
        os._exit(130)
    run()


if __name__ == "__main__":
    main()
