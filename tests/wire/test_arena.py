from __future__ import annotations

import fcntl
import gc
import mmap
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.arena import (
    ALIGNMENT,
    ArenaFull,
    ArenaInvalid,
    ArenaReader,
    ArenaWriter,
    RegionTooLarge,
    aligned,
)

SEGMENT = 1 << 16
ALL_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | 0x10


@pytest.fixture
def writer():
    writer = ArenaWriter(SEGMENT, 4 * SEGMENT)
    yield writer
    writer.close()


@pytest.fixture
def reader():
    reader = ArenaReader(16 * SEGMENT)
    yield reader
    reader.close()


@pytest.fixture
def memfd():
    """A segment as a peer may make it: size and seals as asked."""

    def make(size_bytes=4096, seals=ALL_SEALS):
        fd = os.memfd_create("peer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size_bytes)
        if seals:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return fd

    return make


def deliver(writer, reader):
    """Hand over what the writer opened, as a socket would: with descriptors of the reader's own."""
    for segment, size_bytes, fd in writer.opened:
        reader.attach(segment, size_bytes, os.dup(fd))
    writer.opened.clear()
    for segment in writer.retired:
        reader.retire(segment)
    writer.retired.clear()


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.slow
def test_regions_never_overlap_and_coalesce_when_freed(data):
    writer = ArenaWriter(SEGMENT, 4 * SEGMENT)
    live = {}
    for _ in range(data.draw(st.integers(1, 40))):
        if live and data.draw(st.booleans()):
            key = data.draw(st.sampled_from(sorted(live)))
            del live[key]
            writer.free(*key)
        else:
            size = data.draw(st.one_of(st.integers(0, 300), st.integers(0, 3 * SEGMENT)))
            try:
                region = writer.allocate(size)
            except ArenaFull:
                continue
            assert region.size_bytes >= max(size, 1)
            assert region.offset % ALIGNMENT == region.size_bytes % ALIGNMENT == 0
            assert len(writer.view(region)) == region.size_bytes
            for (segment, offset), there in live.items():
                if segment == region.segment:
                    assert offset + there <= region.offset or region.offset + region.size_bytes <= offset
            live[region.segment, region.offset] = region.size_bytes
        assert writer.used_bytes == sum(live.values())
        own = sum(size for size in live.values() if size > SEGMENT)
        assert own <= 4 * SEGMENT
        assert own <= writer.mapped_bytes <= own + SEGMENT
    for key in live:
        writer.free(*key)
    assert writer.used_bytes == 0
    assert writer.allocate(SEGMENT).size_bytes == SEGMENT
    writer.close()
    assert (writer.used_bytes, writer.mapped_bytes) == (0, 0)


def test_what_the_writer_wrote_is_what_the_reader_reads(writer, reader):
    region = writer.allocate(100)
    writer.view(region)[:5] = b"hello"
    deliver(writer, reader)
    view = reader.view(region.segment, region.offset, 5)
    assert bytes(view) == b"hello"
    assert view.readonly
    writer.view(region)[:5] = b"again"
    assert bytes(view) == b"again"
    view.release()


def test_nothing_is_mapped_before_the_first_use(writer):
    assert writer.mapped_bytes == 0
    assert writer.opened == []


def test_a_full_arena_says_so_and_frees_again(writer):
    regions = [writer.allocate(SEGMENT // 2), writer.allocate(SEGMENT // 2)]
    with pytest.raises(ArenaFull):
        writer.allocate(1)
    writer.free(regions[0].segment, regions[0].offset)
    assert writer.allocate(1).offset == regions[0].offset


def test_first_fit_fills_the_hole(writer):
    a, b, c = (writer.allocate(64) for _ in range(3))
    writer.free(b.segment, b.offset)
    assert writer.allocate(128).offset == c.offset + 64
    assert writer.allocate(64).offset == b.offset
    assert a.offset == 0


def test_a_large_region_gets_a_segment_of_its_own_and_gives_it_back(writer, reader):
    region = writer.allocate(SEGMENT + 1)
    assert region.offset == 0
    assert region.size_bytes == aligned(SEGMENT + 1)
    deliver(writer, reader)
    assert reader.mapped_bytes == writer.mapped_bytes == region.size_bytes
    writer.free(region.segment, region.offset)
    assert writer.mapped_bytes == 0
    deliver(writer, reader)
    assert reader.mapped_bytes == 0


def test_own_segments_share_a_budget_without_the_shared_one(writer):
    writer.allocate(1)
    held = [writer.allocate(2 * SEGMENT), writer.allocate(2 * SEGMENT)]
    with pytest.raises(ArenaFull):
        writer.allocate(SEGMENT + 1)
    writer.free(held[0].segment, held[0].offset)
    writer.allocate(SEGMENT + 1)


def test_what_can_never_fit_is_told_apart_and_names_the_budget(writer):
    with pytest.raises(
        RegionTooLarge, match=f"do not fit the arena's budget of {4 * SEGMENT} bytes"
    ) as caught:
        writer.allocate(4 * SEGMENT + 1)
    assert caught.value.size_bytes == aligned(4 * SEGMENT + 1)
    assert caught.value.budget_bytes == 4 * SEGMENT


@pytest.mark.parametrize("where", [(1, 64), (1, 1), (2, 0), (-1, 0)])
def test_freeing_what_was_not_allocated_is_refused(writer, where):
    region = writer.allocate(64)
    with pytest.raises(ArenaInvalid, match="nothing is allocated at"):
        writer.free(*where)
    writer.free(region.segment, region.offset)
    with pytest.raises(ArenaInvalid):
        writer.free(region.segment, region.offset)


def test_a_segment_is_sealed_before_its_descriptor_leaves(writer):
    writer.allocate(1)
    ((_, size_bytes, fd),) = writer.opened
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) == ALL_SEALS | fcntl.F_SEAL_SEAL
    for size in (size_bytes - 4096, size_bytes + 4096):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_a_received_descriptor_cannot_be_mapped_or_opened_for_writing(writer):
    writer.allocate(1)
    ((_, size_bytes, fd),) = writer.opened
    received = os.dup(fd)
    try:
        with pytest.raises(PermissionError):
            mmap.mmap(received, size_bytes, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        with pytest.raises(PermissionError):
            os.pwrite(received, b"x", 0)
        readable = mmap.mmap(received, size_bytes, prot=mmap.PROT_READ)
        readable.close()
    finally:
        os.close(received)


@pytest.mark.parametrize(
    "seals",
    [
        0,
        fcntl.F_SEAL_SHRINK,
        ALL_SEALS & ~fcntl.F_SEAL_SHRINK,
        ALL_SEALS & ~fcntl.F_SEAL_GROW,
        ALL_SEALS & ~0x10,
    ],
)
def test_an_unsealed_segment_is_refused(reader, memfd, seals):
    fd = memfd(seals=seals)
    with pytest.raises(ArenaInvalid, match="is not sealed against truncation and writing"):
        reader.attach(1, 4096, fd)
    assert not is_open(fd)
    assert reader.mapped_bytes == 0


@pytest.mark.parametrize("announced", [0, -1, 4095, 4097, 8192, 2**63, 2**70])
def test_a_segment_of_another_size_is_refused(reader, memfd, announced):
    fd = memfd(4096)
    with pytest.raises(ArenaInvalid, match="is not of the"):
        reader.attach(1, announced, fd)
    assert not is_open(fd)


def test_a_segment_shrunk_before_it_was_sealed_is_refused(reader, memfd):
    fd = memfd(8192, seals=0)
    os.ftruncate(fd, 4096)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, ALL_SEALS)
    with pytest.raises(ArenaInvalid, match="is not of the 8192 bytes"):
        reader.attach(1, 8192, fd)


def test_what_is_no_memfd_is_refused(reader, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    with pytest.raises(ArenaInvalid, match="segment 1"):
        reader.attach(1, 4096, os.open(path, os.O_RDWR))


def test_a_number_in_use_is_refused(reader, memfd):
    reader.attach(1, 4096, memfd())
    with pytest.raises(ArenaInvalid, match="announced twice"):
        reader.attach(1, 4096, memfd())


def test_the_readers_budget_bounds_what_a_peer_can_map(memfd):
    reader = ArenaReader(8192)
    reader.attach(1, 8192, memfd(8192))
    with pytest.raises(ArenaInvalid, match="exceeds the budget of 8192 bytes"):
        reader.attach(2, 4096, memfd(4096))
    reader.retire(1)
    reader.attach(2, 4096, memfd(4096))
    assert reader.mapped_bytes == 4096
    reader.close()
    assert reader.mapped_bytes == 0


@pytest.mark.parametrize(
    ("segment", "offset", "size"),
    [
        (2, 0, 1),
        (1, 0, 4097),
        (1, 4096, 1),
        (1, -64, 64),
        (1, 0, -1),
        (1, 1, 1),
        (1, 2**63, 1),
        (1, 0, 2**63),
    ],
)
def test_a_reference_outside_of_its_segment_is_refused(reader, memfd, segment, offset, size):
    reader.attach(1, 4096, memfd())
    with pytest.raises(ArenaInvalid, match="are not within a mapped segment"):
        reader.view(segment, offset, size)


def test_references_up_to_the_end_are_fine(reader, memfd):
    reader.attach(1, 4096, memfd())
    assert len(reader.view(1, 4032, 64)) == 64
    assert len(reader.view(1, 4096, 0)) == 0
    gc.collect()


def test_retiring_what_was_never_announced_is_refused(reader):
    with pytest.raises(ArenaInvalid, match="was never announced"):
        reader.retire(3)


def test_views_outlive_their_segment(writer, reader):
    region = writer.allocate(SEGMENT + 1)
    writer.view(region)[:4] = b"kept"
    deliver(writer, reader)
    view = reader.view(region.segment, 0, 4)
    writer.free(region.segment, region.offset)
    deliver(writer, reader)
    assert bytes(view) == b"kept"
    view.release()


def test_no_descriptor_is_left_open(memfd):
    before = set(os.listdir("/proc/self/fd"))
    writer, reader = ArenaWriter(SEGMENT, 4 * SEGMENT), ArenaReader(16 * SEGMENT)
    for size in (1, SEGMENT + 1, 2 * SEGMENT):
        writer.allocate(size)
    deliver(writer, reader)
    writer.close()
    reader.close()
    assert set(os.listdir("/proc/self/fd")) == before
