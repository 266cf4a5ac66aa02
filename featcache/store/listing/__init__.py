"""The listing of a cache on disk: images, labels, splits and texts. Not features."""
