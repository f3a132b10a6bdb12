"""Particle and scorer actors on a Ray cluster."""
