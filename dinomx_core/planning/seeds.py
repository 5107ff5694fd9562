"""Seeds of random streams by their names."""

import hashlib


def seed_of(*name: int | str) -> int:
    """A 63-bit seed from a stream's name."""
    digest = hashlib.blake2b(repr(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
