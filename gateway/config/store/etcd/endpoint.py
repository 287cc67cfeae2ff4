"""One endpoint of an etcd cluster: a channel of its own, so that leaving it is our decision."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
from aetcd import rpc

from gateway.config.store.store import StoreInvalid
from gateway.config.wording import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.store.etcd.address import EtcdAddress, TlsFiles

MAX_REPLY_BYTES: Final = 32 << 20

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
    ("grpc.max_send_message_length", -1),  # etcd says itself what is too large
    # etcd closes a connection that is pinged more often than every 5 s, or without a call.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # what one connection attempt may take
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.dns_min_time_between_resolutions_ms", 2_000),  # a container that comes back has another address
    ("grpc.use_local_subchannel_pool", 1),  # no channel waits because of another's failures
    ("grpc.enable_http_proxy", 0),
)


class Endpoint:
    """Must be closed. Connects when it is first used, and again by itself."""

    def __init__(self, name: str, address: EtcdAddress) -> None:
        """`name` is host:port. Raises StoreInvalid for TLS files that cannot be read."""
        self.name = name
        self.failure = ""  # why the last try failed; empty once it answers
        self.answered_at_s = float("-inf")  # monotonic
        self._tls = address.tls
        self._retired: list[grpc.aio.Channel] = []
        self._stamp = self._files_stamp()
        self._use(self._new_channel())

    def reload(self) -> None:
        """Use TLS files that were replaced since they were read, for connections from now on."""
        stamp = self._files_stamp()
        if stamp == self._stamp:
            return
        try:
            channel = self._new_channel()
        except StoreInvalid:
            return  # they are being replaced just now
        self._stamp = stamp
        self._retired.append(self._channel)  # closing it would cancel what others do with it
        self._use(channel)

    def _use(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.kv: Any = rpc.KVStub(channel)
        self.auth: Any = rpc.AuthStub(channel)
        self.lease: Any = rpc.LeaseStub(channel)
        self.watch: Any = rpc.WatchStub(channel)

    def _new_channel(self) -> grpc.aio.Channel:
        target = f"dns:///{self.name}"  # a bare name such as "unix" would be taken for a scheme
        if self._tls is None:
            return grpc.aio.insecure_channel(target, _OPTIONS)
        options: list[tuple[str, int | str]] = list(_OPTIONS)
        if self._tls.server_name:
            options.append(("grpc.ssl_target_name_override", self._tls.server_name))
        return grpc.aio.secure_channel(target, _credentials(self._tls), options)

    def _files_stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Differs when one of the files was replaced."""
        files = self._tls
        stamps = []
        for path in (files.ca, files.cert, files.key) if files else ():
            try:
                status = os.stat(path) if path else None
            except OSError:
                status = None
            stamps.append((status.st_ino, status.st_mtime_ns, status.st_size) if status else (0, 0, 0))
        return tuple(stamps)

    async def keep_alive(
        self,
        request: Any,
        *,
        timeout: float,  # noqa: ASYNC109 - called as the stubs are
        metadata: Sequence[tuple[str, str]],
    ) -> Any:
        """LeaseKeepAlive as a call with one answer. Raises grpc.aio.AioRpcError."""
        call = self.lease.LeaseKeepAlive(timeout=timeout, metadata=metadata)
        try:
            await call.write(request)
            reply = await call.read()
            if reply is grpc.aio.EOF:
                raise grpc.aio.AioRpcError(
                    grpc.StatusCode.UNAVAILABLE,
                    await call.initial_metadata(),
                    await call.trailing_metadata(),
                    "the stream ended without an answer",
                )
            return reply
        finally:
            call.cancel()

    async def close(self) -> None:
        for channel in (*self._retired, self._channel):
            await channel.close()


def _credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    content = {
        name: _content(name, path)
        for name, path in (("ca", files.ca), ("cert", files.cert), ("key", files.key))
    }
    return grpc.ssl_channel_credentials(content["ca"], content["key"], content["cert"])


def _content(option: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise StoreInvalid(f"the store's option {option} names {quote(path)}: {error.strerror}") from None
    if b"-----BEGIN " not in content:
        raise StoreInvalid(f"the store's option {option} names {quote(path)}, which is no PEM file")
    return content
