"""Downloading and unpacking the archives of data sets; a folder appears complete or not at all.

Here are downloads, their checks and unpacking. What the files mean is the business of layouts.
"""
