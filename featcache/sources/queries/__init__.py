"""Images that a head is asked about: files, folders, tables, archives and sources, labelled or not.

Unlike a data set they need no classes and no splits, are listed while they are read, and an image
that cannot be used is one with a reason, not an error.
"""
