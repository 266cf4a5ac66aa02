"""Encode views into raw float16 rows in batches of a fixed size; knows no cache."""
