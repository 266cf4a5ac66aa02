"""Records of runs: metrics, statistics, storage; `compare` groups them, `render` writes tables."""
