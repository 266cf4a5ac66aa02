"""How the files of a tree become images with labels and splits; knows trees, never the disk."""
