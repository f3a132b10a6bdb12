"""Several models that answer as one: their next-token scores are combined with a vector of coefficients."""
