"""`featcache import`: other people's features, one file a format."""
