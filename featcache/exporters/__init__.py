"""Features for other programs: tables of rows, labels and thumbnails. Heads are in `heads`."""
