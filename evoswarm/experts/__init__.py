"""Trains a pool of experts: one adapter per data set."""
