"""Caches on disk: open, append, read, find, remove; bytes, listings, repair: the folders below."""
