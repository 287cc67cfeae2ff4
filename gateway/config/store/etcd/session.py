"""Calls to a cluster: which endpoint is asked, with which token, and what is tried again.

Guarantees: a call ends within a few seconds. An endpoint that fails or does not answer goes to the end of
the queue, so the next try is of another one. Only what surely was not carried out is repeated, unless
repeating it does no harm.
"""

from __future__ import annotations

import asyncio
import itertools
import random as randoms
from typing import TYPE_CHECKING, Any, Final

import grpc
from aetcd import rpc

from gateway.config.store.etcd.endpoint import Endpoint
from gateway.config.store.etcd.failure import Answered, Cause, Failure, failure_of
from gateway.config.store.etcd.password import read_password
from gateway.config.store.etcd.timing import Backoff, Timing
from gateway.config.store.store import CommitUnclear, StoreAway, StoreInvalid
from gateway.config.wording import quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.store.etcd.address import EtcdAddress

    Method = Callable[[Endpoint], Callable[..., Any]]

# A member that lost its leader refuses at once instead of keeping us waiting, and ends watches.
_NEEDS_LEADER: Final = ("hasleader", "true")
_MOST_TOKENS: Final = 3  # of one call; a fourth would not help either


class Session:
    """Must be closed. For one event loop."""

    def __init__(
        self, address: EtcdAddress, timing: Timing | None = None, random: randoms.Random | None = None
    ) -> None:
        """Raises StoreInvalid when the password is missing, or TLS files cannot be read."""
        self.address = address
        self.timing = timing or Timing()
        self.random = random or randoms.Random()
        # In the order in which they are to be tried. Shuffled, so that many gateways do not ask the same one.
        names = list(address.endpoints)
        self.random.shuffle(names)
        self._endpoints = [Endpoint(name, address) for name in names]
        self._token: str | None = None  # None: to be asked for; empty: etcd wants none
        self._authentication = asyncio.Lock()
        if address.user:
            read_password(address)

    @property
    def endpoint(self) -> Endpoint:
        """The one to ask next."""
        return self._endpoints[0]

    @property
    def away(self) -> str:
        """Why none of the endpoints answers; empty while one does, or has not been tried yet."""
        if any(not endpoint.failure for endpoint in self._endpoints):
            return ""
        return self._failures()

    def left(self, endpoint: Endpoint, why: str) -> None:
        """An endpoint failed: ask the others first from now on."""
        endpoint.failure = why
        endpoint.reload()
        self._endpoints.remove(endpoint)
        self._endpoints.append(endpoint)

    def heard(self, endpoint: Endpoint) -> None:
        """An endpoint lives; whether it can reach its cluster is another question."""
        endpoint.failure = ""

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        """For a call at any endpoint. Raises StoreAway, StoreRefused."""
        return _metadata(await self._get_token())

    def forget_token(self) -> None:
        """The next call asks for a new one."""
        self._token = None

    async def ask(self, method: Method, request: Any, what: str, *, with_token: bool = True) -> Any:
        """Call what may be repeated, until an endpoint answers. `what` says for messages what it is for.

        Raises StoreAway, and Answered for an error that no endpoint would answer differently.
        """
        timing = self.timing
        backoff = Backoff(timing, self.random)
        until_s = _now_s() + timing.call_s
        tokens = 0
        for tries in itertools.count(1):
            token = await self._get_token() if with_token else ""
            endpoint = self.endpoint  # another one perhaps, if a token had to be asked for
            left_s = until_s - _now_s()
            try:
                reply = await method(endpoint)(
                    request, timeout=max(min(timing.try_s, left_s), 0.05), metadata=_metadata(token)
                )
            except grpc.aio.AioRpcError as error:
                failure = failure_of(error.code(), error.details())
            else:
                self._answered(endpoint)
                return reply
            if failure.cause is Cause.TOKEN and self.address.user and tokens < _MOST_TOKENS:
                tokens += 1
                self._refused(token)
                continue
            if failure.cause not in (Cause.UNSENT, Cause.UNCLEAR):
                self._answered(endpoint)
                raise self._refusal(failure, what)
            self.left(endpoint, failure.text)
            wait_s = 0.0 if tries % len(self._endpoints) else backoff.wait_s()
            if _now_s() + wait_s >= until_s:
                break
            await asyncio.sleep(wait_s)
        raise StoreAway(f"{self.address}: {self._failures()}")

    async def ask_once(self, method: Method, request: Any, what: str) -> Any:
        """Call what may not be repeated, at an endpoint that has just answered; again only where it surely
        was not carried out.

        Raises StoreAway, CommitUnclear, and Answered.
        """
        until_s = _now_s() + self.timing.call_s
        for _ in range(1 + _MOST_TOKENS + len(self._endpoints)):
            await self._check_alive()
            token = await self._get_token()
            endpoint = self.endpoint
            try:
                reply = await method(endpoint)(
                    request, timeout=self.timing.commit_s, metadata=_metadata(token)
                )
            except grpc.aio.AioRpcError as error:
                failure = failure_of(error.code(), error.details())
            else:
                self._answered(endpoint)
                return reply
            if failure.cause is Cause.UNCLEAR:
                self.left(endpoint, failure.text)
                raise CommitUnclear(
                    f"{self.address}: asked {endpoint.name} to {what}, and no answer came ({failure.text}); "
                    "it was applied whole, or not at all"
                )
            if failure.cause is Cause.UNSENT:
                self.left(endpoint, failure.text)
            elif failure.cause is Cause.TOKEN and self.address.user:
                self._refused(token)
            else:
                raise self._refusal(failure, what)
            if _now_s() >= until_s:
                break
        raise StoreAway(f"{self.address}: {self._failures()}; nothing was written")

    def denied(self, what: str) -> Answered:
        return self._refusal(Failure(Cause.DENIED, "permission denied"), what)

    async def close(self) -> None:
        for endpoint in self._endpoints:
            await endpoint.close()

    def _answered(self, endpoint: Endpoint) -> None:
        endpoint.failure = ""
        endpoint.answered_at_s = _now_s()

    async def _check_alive(self) -> None:
        """Leave a frozen endpoint before something is sent to it that could not be taken back."""
        if _now_s() - self.endpoint.answered_at_s <= self.timing.fresh_s and not self.endpoint.failure:
            return
        key = self.address.prefix.encode() + b"/"
        request = rpc.RangeRequest(key=key, count_only=True)
        try:
            await self.ask(lambda endpoint: endpoint.kv.Range, request, "see whether it lives")
        except Answered as error:
            if error.cause is not Cause.DENIED:  # a user may well not read this key, and it did answer
                raise

    def _refused(self, token: str) -> None:
        if self._token == token:  # else somebody has already asked for another
            self._token = None

    async def _get_token(self) -> str:
        if not self.address.user:
            return ""
        if self._token is None:
            async with self._authentication:
                if self._token is None:
                    self._token = await self._authenticate()
        return self._token

    async def _authenticate(self) -> str:
        try:
            password = await asyncio.to_thread(read_password, self.address)
        except StoreInvalid as error:  # it was there when the store was opened: it is being replaced
            raise StoreAway(str(error)) from None
        request = rpc.AuthenticateRequest(name=self.address.user, password=password)
        try:
            reply = await self.ask(
                lambda endpoint: endpoint.auth.Authenticate, request, "log in", with_token=False
            )
        except Answered as error:
            if error.cause is Cause.NO_AUTH:
                return ""
            raise
        token: str = reply.token
        return token

    def _refusal(self, failure: Failure, what: str) -> Answered:
        user = f"user {quote(self.address.user)}" if self.address.user else "a client without a user"
        match failure.cause:
            case Cause.CREDENTIALS:
                text = f"{user} or its password is wrong"
            case Cause.TOKEN:
                text = f"{user} may not {what}: {failure.text}"
                if not self.address.user:
                    text += "; etcd wants a user: etcd://USER@host..."
            case Cause.DENIED:
                text = (
                    f"{user} may not {what}; what it needs: etcdctl role grant-permission ROLE readwrite "
                    f"--prefix {self.address.prefix}/"
                )
            case Cause.NO_SPACE:
                text = (
                    f"could not {what}, because the database of etcd is full: compact and defragment it "
                    f"(etcdctl compact REVISION; etcdctl defrag), then etcdctl alarm disarm"
                )
            case _:
                text = f"could not {what}: {failure.text}"
        return Answered(f"{self.address}: {text}", failure.cause)

    def _failures(self) -> str:
        return "; ".join(f"{each.name}: {each.failure}" for each in self._endpoints if each.failure)


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    return (_NEEDS_LEADER, ("token", token)) if token else (_NEEDS_LEADER,)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
