"""Measures Crossgate beside its peers; README.md says how."""
