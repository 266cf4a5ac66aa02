"""Frozen encoders by name; only this folder imports open_clip."""
