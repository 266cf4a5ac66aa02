"""One file = one method = its equations at the top."""
