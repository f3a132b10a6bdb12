"""Benchmarks: `python -m benchmarks.NAME` prints a table and a final line with one JSON object."""
