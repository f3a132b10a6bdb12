"""Routing: a gate that chooses, for each prompt, which expert or mix answers."""
