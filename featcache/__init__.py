"""Encode a data set once with a CLIP-like model; keep the features in a cache that cannot rot."""
