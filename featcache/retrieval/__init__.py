"""Search over the rows of caches: indexes, neighbours, augmentation corpora. Trains no head."""
