"""File formats: shards, manifest records, checksums, seals. Nothing here opens a cache."""
