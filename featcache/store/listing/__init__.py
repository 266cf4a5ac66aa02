"""Which images a cache has, their labels and splits, on disk; features are elsewhere."""
