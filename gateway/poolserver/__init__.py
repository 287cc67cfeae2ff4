"""A pool without a gateway: its workers serve the gateways that connect, over gRPC or a Unix socket."""
