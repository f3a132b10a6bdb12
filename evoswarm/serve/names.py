"""Names of models on a server."""

BASE, WINNER, ENSEMBLE, ROUTER = "base", "winner", "ensemble", "router"
