"""Which runs stand in one table, and the paired difference between them."""
