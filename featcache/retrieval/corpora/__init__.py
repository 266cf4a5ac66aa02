"""Augmentation corpora: unlabelled rows that are nearest to the classes of a data set."""
