"""The commands of `featcache`, one a file; `app` puts them together.

Each parses, calls one function of the library and prints. What they share is in `cli.ui`.
"""
