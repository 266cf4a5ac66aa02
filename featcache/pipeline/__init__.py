"""Plan, pass and run: from a request to shards in a cache. Pixels are the business of `imaging`."""
