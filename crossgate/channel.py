"""How every channel to a gateway is set up."""

from __future__ import annotations

MAX_MESSAGE_BYTES = 64 * 2**20

# Measured from a broken connection to the next try; gRPC's own limits, 20 s and 120 s, suit networks of
# strangers.
_FIRST_RECONNECT_MS = 100
_LAST_RECONNECT_MS = 2_000
_CONNECT_TIMEOUT_MS = 5_000


def channel_options(target: str, max_message_bytes: int) -> tuple[tuple[str, int | str], ...]:
    """Options for `grpc` and `grpc.aio` channels alike; the limit holds both ways.

    gRPC itself never retries: `crossgate.retry` is the only policy. A channel owns its connection, so closing
    it closes the connection. Raises ValueError unless the limit is positive.
    """
    if max_message_bytes <= 0:
        raise ValueError(f"max_message_bytes must be positive, not {max_message_bytes}")
    # gRPC would name the host after the path of a socket, which strict servers refuse
    authority = [("grpc.default_authority", "localhost")] if target.startswith("unix:") else []
    return (
        *authority,
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", _LAST_RECONNECT_MS),
        ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MS),
    )
