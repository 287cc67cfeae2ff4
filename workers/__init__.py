"""Worker processes: each is pinned to one device slot, hosts sessions, and runs the batches that gateways
send it.
"""
