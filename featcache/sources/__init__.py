"""Where images come from: one file for each kind of source, one table for each named data set."""
