"""Caches on disk: open, append, read, find and remove. Folders: format, listing, repair."""
