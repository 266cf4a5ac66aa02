"""Kinds of lists of named data sets, each with the parameters that its TOML file gives it."""
