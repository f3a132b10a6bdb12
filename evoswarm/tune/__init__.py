"""Ray Tune over any field of a config: one trial is one whole search."""
