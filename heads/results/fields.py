"""Reading the fields of an untrusted JSON object: types, ranges, lengths, text and names.

Only values that this program could have written are accepted. Names that become parts of paths
cannot leave their folder.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

from featcache.errors import ImportedFileError

Scalar: TypeAlias = str | int | float | bool | None
"""Value of a setting in JSON."""

WHOLE = 2**63
"""Whole numbers are smaller in size: int64."""

TEXTS = 10_000
"""Largest number of texts in one field; a run writes a handful."""


class Fields:
    """The fields of one object; each method returns a checked value or raises what was expected."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        """Wrap an object; `where` names its file in messages."""
        self.raw, self.where = raw, where

    def inside(self, field_name: str, key: str, value: object) -> "Fields":
        """Return the fields of a nested object."""
        path = f"{field_name}.{key}".lstrip(".")
        if not isinstance(value, dict):
            raise self.wrong(path, "an object", value)
        return Fields(value, f"{self.where}, {path},")

    def wrong(self, field_name: str, expected: str, got: object) -> ImportedFileError:
        """Compose the error for a field."""
        shown = repr(got)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return ImportedFileError(
            f"{self.where} is not a run record: '{field_name}' should be {expected}, got {shown}."
        )

    def check(self, value: object, kind: type[Any], field_name: str) -> Any:
        """Return a value of this type."""
        # bool is a subclass of int in Python, but not a number in a record
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.wrong(field_name, f"of type {kind.__name__}", value)
        return value

    def whole(self, value: str, field_name: str) -> str:
        """Return text that UTF-8 can encode."""
        if re.search(r"[\ud800-\udfff]", value):  # lone surrogates, which UTF-8 cannot encode
            raise self.wrong(field_name, "text without lone surrogates", value)
        return value

    def text(self, field_name: str) -> str:
        """Return a field of text."""
        value = str(self.check(self.raw.get(field_name), str, field_name))
        return self.whole(value, field_name)

    def texts(self, field_name: str) -> tuple[str, ...]:
        """Return a field of several texts."""
        each = (self.check(t, str, field_name) for t in self.sequence(field_name, TEXTS))
        return tuple(self.whole(text, field_name) for text in each)

    def name(self, field_name: str) -> str:
        """Return a field that can be part of a path."""
        value = self.text(field_name)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}", value):
            raise self.wrong(field_name, "a name of letters, digits, '.', '_', '+', '-'", value)
        return value

    def integer(self, field_name: str, least: int = -WHOLE, most: int = WHOLE) -> int:
        """Return a field that is a whole number in [least, most]."""
        return self.count(self.raw.get(field_name), field_name, least, most)

    def count(self, value: object, field_name: str, least: int, most: int) -> int:
        """Return a whole number in [least, most]."""
        whole = int(self.check(value, int, field_name))
        if not least <= whole <= most:
            # Python refuses to print integers of more than 4,300 digits
            raise self.wrong(field_name, f"from {least} to {most}", float_or_huge(whole))
        return whole

    def number(
        self, value: object, field_name: str, least: float = -math.inf, most: float = math.inf
    ) -> float:
        """Return a finite number in [least, most]."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(field_name, "a number", value)
        try:
            number = float(value)
        except OverflowError as error:
            raise self.wrong(field_name, "a finite number", "a huge integer") from error
        if not math.isfinite(number):
            raise self.wrong(field_name, "a finite number", value)
        if not least <= number <= most:
            raise self.wrong(field_name, f"from {least:g} to {most:g}", value)
        return number

    def optional_number(self, field_name: str, least: float, most: float) -> float | None:
        """Return a field that is a number in [least, most], or null."""
        value = self.raw.get(field_name)
        return None if value is None else self.number(value, field_name, least, most)

    def numbers(
        self, value: object, field_name: str, least: float = -math.inf, most: float = math.inf
    ) -> dict[str, float]:
        """Return an object of numbers in [least, most]."""
        items: dict[str, Any] = self.check(value, dict, field_name)
        return {
            self.whole(k, field_name): self.number(v, f"{field_name}.{k}", least, most)
            for k, v in items.items()
        }

    def scalar(self, value: object, field_name: str) -> Scalar:
        """Return text, a finite number, true, false or null."""
        if isinstance(value, str):
            return self.whole(value, field_name)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return self.count(value, field_name, -WHOLE, WHOLE)
        if isinstance(value, float):
            return self.number(value, field_name)
        raise self.wrong(field_name, "text, numbers or true/false", value)

    def sequence(self, field_name: str, most: int) -> list[Any]:
        """Return a field that is a list of at most so many entries."""
        value = list(self.check(self.raw.get(field_name), list, field_name))
        if len(value) > most:
            raise self.wrong(field_name, f"at most {most} entries", f"{len(value)}")
        return value

    def mapping(self, field_name: str) -> dict[str, Any]:
        """Return a field that is an object."""
        value = self.check(self.raw.get(field_name), dict, field_name)
        return {self.whole(k, field_name): v for k, v in value.items()}


def float_or_huge(value: int) -> object:
    """Return a whole number that a message can show."""
    return value if abs(value) < 10**20 else "a huge integer"
