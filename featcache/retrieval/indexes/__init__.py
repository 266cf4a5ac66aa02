"""Indexes on disk: description, arrays, building, checking. Their kinds are in `kinds`."""
