"""Augmentation corpora: rows of unlabelled caches with the class that retrieval gave them."""
