"""TensorBoard and Weights & Biases: one file per logger, imported only if the config enables it."""
