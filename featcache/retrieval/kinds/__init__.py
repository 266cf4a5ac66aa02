"""Kinds of indexes, one a file: what they learn, store and find. Knows no cache and no file."""
