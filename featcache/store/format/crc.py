"""crc32 at the speed of memory: by ISA-L's instructions where its package has any, else by zlib.

Both compute the same polynomial, so what one wrote the other reads.
"""

try:
    from isal.isal_zlib import crc32
except ImportError:  # no wheel for this kind of machine: the same numbers, five times slower
    from zlib import crc32

__all__ = ["crc32"]
