"""As much of HPACK (RFC 7541) as a test needs: literals are written without any check, and what a peer sends
that was told to keep no table is read strictly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


def integer(value: int, prefix_bits: int, pattern: int = 0) -> bytes:
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([pattern | value])
    encoded, value = bytearray([pattern | limit]), value - limit
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    """Return a literal field. `indexed`: the receiver's table remembers it, first at index 62."""
    kind = b"\x40" if indexed else b"\0"
    return kind + integer(len(name), 7) + name + integer(len(value), 7) + value


def indexed(index: int) -> bytes:
    return integer(index, 7, 0x80)


def table_size(size_bytes: int) -> bytes:
    return integer(size_bytes, 5, 0x20)


def block(fields: Mapping[str, str]) -> bytes:
    return b"".join([field(name.encode(), value.encode()) for name, value in fields.items()])


# {index: field} of the static table, as far as the server answers with them
_STATUSES: Final = ("200", "204", "206", "304", "400", "404", "500")
_STATIC: Final = {8 + i: (":status", status) for i, status in enumerate(_STATUSES)} | {
    28: ("content-length", ""),
    31: ("content-type", ""),
}
# The code is canonical: by length in bits, the symbols in the order of their codes. Others never occur.
_HUFFMAN: Final = {
    5: "012aceiost",
    6: " %-./3456789=A_bdfghlmnpru",
    7: ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: "&*,;XZ",
    10: '!"()?',
    11: "'+|",
    12: "#>",
    13: "\0$@[]~",
    14: "^}",
    15: "<`{",
}


def _huffman_codes() -> dict[tuple[int, int], str]:
    """Return {(length in bits, code): symbol}."""
    codes, code, before = {}, 0, 0
    for length, symbols in _HUFFMAN.items():
        code <<= length - before
        before = length
        for symbol in symbols:
            codes[length, code] = symbol
            code += 1
    return codes


_CODES: Final = _huffman_codes()


def _unhuffman(data: bytes) -> str:
    text, length, code = [], 0, 0
    for byte in data:
        for shift in range(7, -1, -1):
            length, code = length + 1, code << 1 | byte >> shift & 1
            symbol = _CODES.get((length, code))
            if symbol is not None:
                text.append(symbol)
                length = code = 0
    assert length < 8, "padding is shorter than a byte"
    assert code == (1 << length) - 1, "padding is all ones"
    return "".join(text)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def peek(self) -> int | None:
        return self._data[self._at] if self._at < len(self._data) else None

    def integer(self, prefix_bits: int) -> int:
        limit = (1 << prefix_bits) - 1
        value, shift = self._byte() & limit, 0
        if value < limit:
            return value
        while True:
            byte = self._byte()
            value += (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def text(self) -> str:
        first = self.peek()
        size = self.integer(7)
        raw = self._data[self._at : self._at + size]
        assert len(raw) == size
        self._at += size
        return _unhuffman(raw) if first is not None and first & 0x80 else raw.decode("ascii")


def read_block(data: bytes) -> dict[str, str]:
    reader, fields = _Reader(data), {}
    while (first := reader.peek()) is not None:
        if first & 0x80:
            name, value = _STATIC[reader.integer(7)]
        elif first & 0xE0 == 0x20:
            assert reader.integer(5) == 0, "no table"
            continue
        else:
            index = reader.integer(6 if first & 0x40 else 4)
            name = _STATIC[index][0] if index else reader.text()
            value = reader.text()
        fields[name] = value
    return fields
