"""Comparing searches with every alternative at equal cost: same pool, utility, seeds and budget."""
