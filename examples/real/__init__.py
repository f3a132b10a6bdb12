"""A whole run with a real language model on a CPU: `make real`."""
