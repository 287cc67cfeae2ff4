"""The gateway's links to workers of other pools: found in the store, reached over gRPC or a Unix socket."""
