"""The protocol between a gateway and a worker: frames on a Unix socket, tensors in sealed one-way arenas.

Both sides import this package and nothing of each other.
"""
