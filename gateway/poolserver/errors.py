"""What keeps a pool from starting, and the operator can put right."""

from __future__ import annotations


class PoolInvalid(Exception):
    """The options do not fit together, or what they name cannot be used; the message says what would."""


class FolderTaken(Exception):
    """Another pool runs with this folder."""

    def __init__(self, folder: object) -> None:
        super().__init__(f"another pool uses the folder {folder}; give this one its own with --pool-folder")
