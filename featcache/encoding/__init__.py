"""Views in grey levels -> raw float16 rows, in batches of one size; knows no cache."""
