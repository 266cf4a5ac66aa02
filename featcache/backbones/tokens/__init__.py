"""Tokenizers: sentences to rows of token ids, as each text tower was trained with.

`choice` says which one a model has; `files` reads one from local files.
"""
