import pytest

from featcache.store.format.seal import seal, unseal


def test_a_sealed_object_comes_back_and_every_changed_byte_shows() -> None:
    value = {"b": [1, "ä"], "a": {"crc": "01234567"}}
    first, crc = seal(value)
    second, _ = seal(value, crc)
    assert unseal(first[:-1]) == (value, crc)
    assert unseal(second[:-1], crc)[0] == value
    with pytest.raises(ValueError, match="missing or swapped"):
        unseal(second[:-1])
    for position in range(len(first) - 1):
        broken = bytearray(first[:-1])
        broken[position] ^= 1
        with pytest.raises(ValueError, match=r"^(is|does) not "):
            unseal(bytes(broken))


@pytest.mark.parametrize("line", [b"", b"{}", b'[],"crc":"00000000"}', b"\x00" * 40])
def test_what_was_never_sealed_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(is|does) not "):
        unseal(line)
