"""The pool of experts and its arithmetic: read, check, materialize, merge, save."""
