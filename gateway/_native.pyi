"""The native extension: transport, copies into arenas, load generator. Its source is native/."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import final

from gateway.call import Buffer as AnyBuffer
from gateway.call import Call, CallId, Tensor

Address = tuple[int, int, int]

def build_profile() -> str:
    """Return how the extension was compiled: `release` or `debug`."""

def copy_parts(parts: list[AnyBuffer], target: memoryview) -> None:
    """Write the parts one behind the other into `target`, without the GIL where it takes long.

    Raises:
        ValueError: they do not fill it exactly.
    """

def load(
    config_json: str, bodies: list[bytes], on_progress: Callable[[str], object] | None = None
) -> tuple[str, list[bytes]]:
    """Put load on a server and return (report as JSON, sampled answers). `on_progress` gets the JSON of each
    second; what it raises ends the run. See native/src/load/config.rs and report.rs for the fields.

    Raises:
        ConnectionError: no connection, at the start or for long.
        ValueError: the configuration cannot be used.
    """

@final
class Copier:
    """A thread that copies while Python goes on."""

    def __init__(self) -> None: ...
    def fileno(self) -> int:
        """A descriptor that becomes readable when something is done."""

    def copy(self, copies: Sequence[tuple[list[AnyBuffer], memoryview]], token: int) -> None:
        """Write parts one behind the other into targets; `token` then stands for all of them.

        Raises:
            ValueError: parts do not fill their target exactly.
        """

    def take(self) -> list[int]:
        """Return the tokens of what is done."""

    def close(self) -> None:
        """End the thread when it has done what it was given."""

@final
class Server:
    """One listening server and its thread. The calls that it makes have the attributes of
    `gateway.call.Call`.
    """

    def __init__(self, config: str, origin: object, tensor: type[Tensor]) -> None:
        """Start to listen. `config` is JSON with the fields of `Config` in native/src/transport/server.rs.

        Raises:
            OSError: it cannot listen.
            ValueError: the configuration is wrong.
        """

    @property
    def address(self) -> str: ...
    def fileno(self) -> int:
        """A descriptor that becomes readable when there is something to take."""

    def take(
        self,
    ) -> tuple[
        list[Call],
        list[CallId],
        list[tuple[str, Address, str, bytes, Mapping[str, str] | None]],
        list[str],
    ]:
        """Return what has arrived: calls, cancelled calls, events of other RPCs (what happened, where,
        method, message, and the metadata of a unary one), and warnings.
        """

    def settle_batch(
        self,
        calls: list[Call],
        starts: list[int],
        rows: list[int],
        total_rows: int,
        model: str,
        version: str,
        revision: int,
        outputs: Iterable[Tensor],
    ) -> None:
        """Answer the calls of a batch, see `gateway.call.BatchReply`.

        Raises:
            ValueError: an output is not `total_rows` rows.
        """

    def settle_errors(self, errors: Sequence[tuple[Call, int, str, int | None, str, int]]) -> None:
        """Answer calls with (call, status code, message, milliseconds until a retry, version, revision)."""

    def send(self, to: Address, message: bytes) -> None: ...
    def answer(self, to: Address, message: bytes) -> None: ...
    def end(self, to: Address) -> None: ...
    def fail(self, to: Address, code: int, message: str, pushback_ms: int | None) -> None: ...
    def taken(self, to: Address) -> None:
        """A message of an RPC was taken: another may be read."""

    @property
    def unanswered(self) -> int:
        """Requests that are not answered; when none is left during a drain, the descriptor is readable."""

    def counts(self) -> tuple[int, int, int, int, int]:
        """Connections: open, accepted, closed for what the peer did. Bytes: held by requests, by answers."""

    def drain(self, deaf: bool) -> None:
        """Ask connections to go away once their requests are answered; `deaf`: accept no new ones either."""

    def close(self) -> None: ...

@final
class Echo:
    """A server that answers every ModelInfer with the same message: what the transport alone costs."""

    def __init__(self, host: str, port: int, response: bytes) -> None: ...
    @property
    def port(self) -> int: ...
    def close(self) -> None: ...
