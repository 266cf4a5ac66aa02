"""Downloads that are checked before they count."""
