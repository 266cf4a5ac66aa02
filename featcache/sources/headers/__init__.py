"""What the headers of tar and zip files say: one reader of each, wherever the bytes come from.

Archives are read in two ways: unpacked from a stream (`sources/fetch`) and in place
(`sources/trees`). Both have to find the same files in them, so neither parses a header itself.
"""
