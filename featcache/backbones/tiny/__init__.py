"""The embedded backbone: a small CLIP trained by `train.py` on captioned drawings."""
