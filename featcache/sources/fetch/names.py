"""Names of an archive's members: which may become files."""

from featcache.sources.fetch.refusals import quoted, unsafe

LONGEST_PART, LONGEST = 255, 1024
"""Bytes that file systems allow for a name, and that a path may have."""

DEEPEST = 64
"""Folders in one another."""

MARKER = ".fetched.json"
"""The file in a fetched folder that says what was fetched."""


def checked_name(name: str, archive: str) -> tuple[str, ...]:
    """Split a member's name into folders and file, or refuse it.

    Args:
        name: As the archive has it, with `/` between folders.
        archive: What the member is from, for the error.

    Returns:
        The parts, without `.` and empty ones; none for the top folder itself.

    Raises:
        SourceError: If the name is absolute, leads out of the folder, is too long, or has
            characters that no file of a data set needs.

    Example:
        >>> checked_name("./images/a.jpg", "pets.tar")
        ('images', 'a.jpg')
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    fault = ""
    if name.startswith("/"):
        fault = "is absolute"
    elif ".." in parts:
        fault = "leads out of its folder"
    elif "\\" in name:
        fault = "has a backslash, which is a folder on some systems and a letter on others"
    elif any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name):
        fault = "has control characters"
    elif any(len(part) > LONGEST_PART for part in encoded):
        fault = f"has a part of more than {LONGEST_PART} bytes"
    elif sum(map(len, encoded)) + len(encoded) > LONGEST:
        fault = f"has more than {LONGEST} bytes"
    elif len(parts) > DEEPEST:
        fault = f"has more than {DEEPEST} folders in one another"
    elif parts[:1] == (MARKER,):
        fault = "is reserved for the record of what was fetched"
    elif not _is_text(name):
        fault = "has half characters, which no file's name can have"
    if fault:
        raise unsafe(archive, f"has a member {quoted(name)}, whose name {fault}")
    return parts


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
