"""How images get labels and splits: by the folders of a tree, or by a list that names them."""
