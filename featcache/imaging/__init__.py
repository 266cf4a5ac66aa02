"""Bytes of an image -> views and crops as the encoder sees them; knows no cache."""
