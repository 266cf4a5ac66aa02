"""Other people's features, checked before they become a cache."""
