"""The embedded backbone whose patches carry text: `tiny`, trained further by `train.py`."""
