"""Records of runs, their statistics and how they are kept; tables are made in the folders below."""
