"""The generation loop over a backend, and the run directory."""
