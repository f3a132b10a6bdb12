"""The pool of experts and its arithmetic: read, check, materialise, merge, save."""
