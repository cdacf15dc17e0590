"""The hash by which Java clients choose a key's partition, written down on its own.

After Austin Appleby's MurmurHash2 (32 bits, seed 0x9747b28c), as Kafka's ``Utils.murmur2`` and
``BuiltInPartitioner.partitionForKey`` have it.
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


def murmur2(key: bytes) -> int:
    """Return the hash as Java shows it: a signed number of 32 bits."""
    hashed = 0x9747B28C ^ len(key)
    whole = len(key) - len(key) % 4
    for at in range(0, whole, 4):
        block = int.from_bytes(key[at : at + 4], "little") * _M & _MASK
        block = (block ^ (block >> 24)) * _M & _MASK
        hashed = (hashed * _M & _MASK) ^ block
    if rest := key[whole:]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * _M & _MASK
    hashed = (hashed ^ (hashed >> 13)) * _M & _MASK
    hashed ^= hashed >> 15
    return hashed - (1 << 32) if hashed >> 31 else hashed


def java_partition(key: bytes, partitions: int) -> int:
    """Return where a Java producer puts a record with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
