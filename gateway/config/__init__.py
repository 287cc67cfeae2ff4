"""Configuration documents: what an operator writes, read with every problem at once.

`document` has the structs, `validation` turns plain data into one, `files` reads `model.yaml` or `.json`
into plain data, `triton` reads Triton's `config.pbtxt`, `device` is the device grammar.
"""
