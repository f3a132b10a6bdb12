"""The one generation loop over a backend, and the run directory that it keeps."""
