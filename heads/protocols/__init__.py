"""Protocols decide who may see which rows: one file each, and the episodes that they build."""
