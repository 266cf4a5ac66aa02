"""The weights are frozen: with others, every figure on `tiny-local` is of another model."""

import hashlib

from featcache.backbones.names import embedded_weights

SHA256 = "56eb2a7f7e746e7d7bf5d7c169c780cf3d605c46ed9ed94906b80d3d95f633e7"


def test_weights() -> None:
    data = embedded_weights("tiny-local").read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256
    assert len(data) <= len(embedded_weights("tiny").read_bytes())
