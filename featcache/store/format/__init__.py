"""What the bytes on disk mean: shards, records, checksums, seals; no cache is opened here."""
