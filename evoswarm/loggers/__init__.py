"""TensorBoard and Weights & Biases: one file per logger, imported where a config asks for it."""
