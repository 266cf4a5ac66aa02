"""Which heads can leave as a file, and why others cannot."""

from featcache.errors import HeadError, UsageError
from featcache.wording import Argument
from heads.answering import query_needs
from heads.head import Head


def check_exportable(head: Head) -> None:
    """Refuse heads whose answers need more than one feature vector an image.

    Raises:
        HeadError: If the method answers queries together, or reads crops, patches, views or tokens.
    """
    method = head.method
    if method.transductive:
        raise HeadError(
            f"'{method.name}' answers all queries together, so no file answers one image alone. "
            f"Export a method that answers each by itself; `heads list` marks the others."
        )
    needs = query_needs(head)
    read = sorted(str(need.key) for need in needs if need.kind != "global" and not need.optional)
    if read:
        raise HeadError(
            f"This head of {method.name} reads {', '.join(read)} of every image; an exported file "
            f"takes one global feature vector an image. Export a method that reads these alone."
        )


def check_strippable(head: Head, *, linear: bool) -> None:
    """Refuse to strip training features from a head that answers with them.

    Args:
        head: The head.
        linear: Whether it is folded into one matrix, in which no training feature is left.

    Raises:
        UsageError: If it holds features of training images and is not folded.
    """
    if head.holds and not linear:
        raise UsageError(
            f"{head.method.name} compares every row with features of its training images "
            f"({', '.join(head.holds)}), and gives no answer without them. Leave ",
            Argument("strip"),
            " out, or train a method whose head folds into one matrix: gda, ridge, linear-probe.",
        )


def check_numpy(head: Head, *, linear: bool) -> None:
    """Refuse to write a head as arrays that is not one matrix and one vector.

    Raises:
        UsageError: If it is not linear.
    """
    if not linear:
        raise UsageError(
            f"Arrays alone answer for linear heads, and logits of {head.method.name} are not "
            f"affine in the row. Use ",
            Argument("to", "onnx"),
            " or ",
            Argument("to", "torch"),
            ".",
        )
