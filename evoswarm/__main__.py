"""`python -m evoswarm` is the command `evoswarm`."""

from evoswarm.cli.main import main

main()
