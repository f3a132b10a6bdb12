"""Scores that come from services: asked over HTTP with limits for the whole run, and never twice for the same.

Importing this package needs no package for HTTP.
"""
