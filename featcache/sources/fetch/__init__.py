"""Archives of data sets: from an address to a folder of files, whole or not at all.

Here are downloads, their checks and unpacking. What the files mean is the business of layouts.
"""
