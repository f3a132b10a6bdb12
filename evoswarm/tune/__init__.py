"""Ray Tune over any field of a config. One trial is one whole search."""
