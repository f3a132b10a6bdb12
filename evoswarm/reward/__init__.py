"""Runs models that score texts: reward models and classifiers, with transformers or vLLM."""
