"""Named files below one root, wherever their bytes lie: a folder, a zip, a tar, a parquet file."""
