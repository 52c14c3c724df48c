"""The errors users can meet, as a small hierarchy: what failed, which file, what to do next."""

from __future__ import annotations


class DiffVQAError(Exception):
    """Base of every error that is reported to the user as one line.

    Args:
        what: What failed, naming the file or the setting.
        hint: What to do next; printed after the message.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


class CacheError(DiffVQAError):
    """Something about a feature cache."""


class CacheBusyError(CacheError):
    """Another process is writing to the cache."""


class CacheCorruptError(CacheError):
    """Stored bytes are not what was written; the message names the video and the array."""


class CacheUnreachableError(CacheError):
    """The place of a cache cannot be read: no permission, no connection, or nothing that speaks its protocol."""


class CacheMissingError(CacheError):
    """There is no cache where one was expected, or it holds no such video."""


class FingerprintMismatchError(CacheError):
    """Features made another way than asked for; the message names the field and both values."""


class SchemaTooNewError(CacheError):
    """A newer version of the software wrote this cache."""


class OutputError(DiffVQAError):
    """An output file or folder cannot be written."""


class MemoryLimitError(CacheError):
    """What was asked for does not fit in the memory that it may take up."""


class UnknownArrayError(CacheError):
    """An array was asked for that the cache does not have."""


class ImportFileError(CacheError):
    """A file that features are to be imported from is not there or is no export of features."""
