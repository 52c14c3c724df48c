"""JSON documents that end in the digest of their own bytes, so that no changed byte goes unnoticed.

A sealed document is one JSON object whose last member is ``sha256``: the SHA-256, in hexadecimal, of every byte before
the comma that precedes this member.
"""

from __future__ import annotations

import hashlib

from diffvqa.cache._errors import CacheCorruptError

_SEAL = ',"sha256":"{}"}}\n'
_SEAL_LENGTH = len(_SEAL.format("0" * 64))


def seal(document: str) -> bytes:
    """Return the bytes of a sealed document.

    Args:
        document: A JSON object with at least one member.
    """
    content = document.rstrip().removesuffix("}").rstrip().encode()
    return content + _seal_of(content)


def unseal(sealed: bytes, where: str, hint: str) -> bytes:
    """Return the JSON object that was sealed, checked.

    Args:
        sealed: As :func:`seal` made it.
        where: The file, for the message.
        hint: What to do when it is damaged.

    Raises:
        CacheCorruptError: Some byte is not what was written.
    """
    content, stored_seal = sealed[:-_SEAL_LENGTH], sealed[-_SEAL_LENGTH:]
    if stored_seal != _seal_of(content):
        raise CacheCorruptError(f"{where} is damaged: its bytes do not match its digest.", hint)
    return content + b"}"


def _seal_of(content: bytes) -> bytes:
    return _SEAL.format(hashlib.sha256(content).hexdigest()).encode()
