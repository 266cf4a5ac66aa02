"""How the images of a data set are listed, and splits that are made here; no bytes are fetched."""
