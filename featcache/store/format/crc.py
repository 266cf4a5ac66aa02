"""crc32 by ISA-L, at the speed of memory, or by zlib if ISA-L is not installed.

Both compute the same checksum.
"""

try:
    from isal.isal_zlib import crc32
except ImportError:  # no wheel for this platform; zlib is five times slower
    from zlib import crc32

__all__ = ["crc32"]
