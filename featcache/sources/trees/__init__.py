"""Files below a root, in a folder, a zip or a tar."""
