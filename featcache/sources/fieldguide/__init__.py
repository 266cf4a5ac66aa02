"""The drawn world: moths of invented species, rendered to JPEG files on first use."""
