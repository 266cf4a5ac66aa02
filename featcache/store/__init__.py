"""Shards, manifest and cache: written once, checked, never half valid."""
