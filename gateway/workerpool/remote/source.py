"""How a LOAD names files that the pool is to get by itself: their source, and their digest as its fragment,
where a file would have its path.
"""

from __future__ import annotations


def source_path(source: str, digest: str | None) -> str:
    """Return what stands for a path: `s3://models/digits.onnx#sha256:...`."""
    return f"{source}#{digest}" if digest else source


def read_source_path(path: str) -> tuple[str, str | None] | None:
    """Return the source and its digest; None for the path of a file."""
    if "://" not in path:
        return None
    source, _, digest = path.partition("#")
    return source, digest or None
