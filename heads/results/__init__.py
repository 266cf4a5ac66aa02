"""Records, statistics and tables."""
