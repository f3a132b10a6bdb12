"""Making experts: supervised training of a pool, one adapter per data set."""
