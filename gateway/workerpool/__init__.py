"""The node's worker processes and the gateway's links to them."""
