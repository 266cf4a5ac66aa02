"""Choosing hyper-parameters without a look at the query: grids, folds, counts of right answers."""
