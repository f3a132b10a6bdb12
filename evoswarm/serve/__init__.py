"""Serves what a run has found: an OpenAI-compatible server, or a chat on the terminal."""
