"""Runtimes: one file each behind the seam of `runtime.py`, imported when the first servable asks for it."""
