"""Steps, batches and optimisers: how parameters move. What is tried and kept is `selection`."""
