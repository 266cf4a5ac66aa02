"""Sources that are opened by a prefix and a path, as `folder:PATH`, and what each prefix does."""
