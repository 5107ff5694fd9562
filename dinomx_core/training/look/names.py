"""What images, groups and classes are called in a report: as they are, or by hashes."""

import hashlib
import secrets
from collections.abc import Callable

Naming = Callable[[str], str]


def as_they_are(name: str) -> str:
    """The name itself."""
    return name


def hashed() -> Naming:
    """A function from names to hashes. Its key is drawn anew and kept nowhere, so nobody can try names until one fits."""
    key = secrets.token_bytes(32)
    return lambda name: hashlib.blake2b(name.encode("utf-8", "surrogateescape"), key=key, digest_size=5).hexdigest()
