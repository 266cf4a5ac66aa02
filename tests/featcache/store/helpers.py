"""Contents of caches in tests."""

from featcache.store.cache import Cache


def files(cache: Cache) -> dict[str, bytes]:
    return {
        str(p.relative_to(cache.path)): p.read_bytes()
        for p in sorted(cache.path.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }
