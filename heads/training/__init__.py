"""Training: batches, optimisers and stacked runs. Choosing among runs is `selection`."""
