"""Extraction: from a request to shards in a cache. Pixels are handled by `imaging`."""
