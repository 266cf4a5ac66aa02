"""Rows of texts that were encoded before, by sentence."""

from collections.abc import Collection, Iterator

from jaxtyping import Float32
from torch import Tensor

from featcache.bank import TextBank
from featcache.text.templates import fill


def rows_by_text(bank: TextBank, wanted: Collection[str]) -> dict[str, Float32[Tensor, " d"]]:
    """Return the rows of those sentences that a bank has.

    Args:
        bank: Encoded texts, not normalised.
        wanted: Sentences; a set makes this fast.

    Example:
        >>> import torch
        >>> bank = TextBank(classes=("owl",), names=torch.ones(1, 2), templates=(),
        ...                 template_rows=None)
        >>> rows_by_text(bank, {"owl", "newt"})
        {'owl': tensor([1., 1.])}
    """
    return {text: row for text, row in _pairs(bank) if text in wanted}


def _pairs(bank: TextBank) -> Iterator[tuple[str, Float32[Tensor, " d"]]]:
    if bank.names is not None:
        yield from zip(bank.classes, bank.names, strict=True)
    if bank.template_rows is not None:
        for name, rows in zip(bank.classes, bank.template_rows, strict=True):
            yield from ((fill(t, name), row) for t, row in zip(bank.templates, rows, strict=True))
    for owned in bank.owned().values():
        yield from zip(owned.texts, owned.rows, strict=True)
