"""Texts of classes: read, checked, encoded, exported, and written by a language model."""
