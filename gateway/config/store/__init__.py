"""Where configuration is kept: `store` has the interface, `local` and `etcd` are behind it, `opening` picks
one by its URL.
"""
