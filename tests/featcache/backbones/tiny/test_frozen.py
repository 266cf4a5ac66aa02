"""The embedded weights are frozen: with others, every figure on `tiny` is of another model."""

import hashlib
from pathlib import Path

import featcache.backbones.tiny as package

WEIGHTS = Path(package.__file__).with_name("weights.safetensors")
SHA256 = "edaf483f8f72ca2ee7a7a9e89d849875646ef4fdc30f0a7b4ac388e27c272902"


def test_weights() -> None:
    data = WEIGHTS.read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256
    assert len(data) <= 12 * 10**6
