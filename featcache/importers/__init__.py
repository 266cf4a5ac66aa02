"""Import features from files of others, checked before they become a cache."""
