"""Names of data sets on the hub: `owner/name@revision:configuration`."""

import re
from dataclasses import dataclass

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_NAME = re.compile(
    rf"(?P<owner>{_PART})/(?P<name>{_PART})"
    rf"(@(?P<revision>{_PART}(/{_PART})*))?(:(?P<config>{_PART}(/{_PART})*))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubName:
    """A data set of the hub, at a revision.

    Example:
        >>> HubName.read("timm/resisc45@v1:default")
        HubName(owner='timm', name='resisc45', revision='v1', config='default')
        >>> print(HubName.read("timm/resisc45"), HubName.read("photos"))
        timm/resisc45 None
    """

    owner: str
    name: str
    revision: str = "main"
    """A branch, a tag, a commit, or a reference such as refs/convert/parquet."""
    config: str = ""
    """Folder of the repository that is one of its data sets; empty where there is only one."""

    @classmethod
    def read(cls, text: str) -> "HubName | None":
        """Read a name as the user wrote it; None where it is none."""
        found = _NAME.fullmatch(text)
        if found is None:
            return None
        return cls(
            found["owner"], found["name"], found["revision"] or "main", found["config"] or ""
        )

    @property
    def repository(self) -> str:
        """Owner and name, as `timm/resisc45`."""
        return f"{self.owner}/{self.name}"

    @property
    def short(self) -> str:
        """Name of the data set where the user gives none."""
        return "-".join((self.name, *filter(None, self.config.split("/"))))

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision != "main" else ""
        return f"{self.repository}{revision}{f':{self.config}' if self.config else ''}"


def is_commit(revision: str) -> bool:
    """Tell whether a revision is a commit, whose files never change."""
    return _COMMIT.fullmatch(revision) is not None
