"""The command line. Thin: every command is a few lines over the library."""
