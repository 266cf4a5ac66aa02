"""Heads as files for programs without featcache: ONNX, plain torch, NumPy.

A head is traced once (`program`), written in a format (`formats`), and the files are run and
compared with the head (`checking`) before they get their place (`writing`). Nothing here trains.
"""
