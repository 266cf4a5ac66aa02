"""Filling the inverted lists of faiss from arrays: as copies, or as views of the codes."""

from typing import Any

from jaxtyping import Int64, Shaped


def fill_lists(
    faiss: Any,
    index: Any,
    sizes: Int64[Any, " l"],
    ids: Int64[Any, " n"],
    codes: Shaped[Any, "n b"],
    *,
    as_views: bool,
) -> bool:
    """Put vectors into the empty lists of an index.

    A copy of all codes takes most of the time of opening an index. Views need no time, but faiss
    ends the process if a vector is added to them.

    Args:
        faiss: The library.
        index: A trained `IndexIVF` without a vector.
        sizes: Vectors of each list; together n.
        ids: Ids, list after list.
        codes: Codes in the same order, contiguous.
        as_views: Let faiss read `codes` where they lie. They must outlive the index.

    Returns:
        Whether the lists are views: not if this faiss cannot make any.

    Example:
        >>> import faiss, numpy as np
        >>> index = faiss.IndexIVFFlat(faiss.IndexFlatIP(2), 2, 1)
        >>> codes = np.eye(2, dtype=np.float32).view(np.uint8)
        >>> fill_lists(faiss, index, np.array([2]), np.array([7, 9]), codes, as_views=False)
        False
        >>> index.invlists.list_size(0)
        2
    """
    lists = faiss.downcast_InvertedLists(index.invlists)
    views = _empty_views(faiss, lists) if as_views else None
    end = 0
    for number, size in enumerate(sizes.tolist()):
        start, end = end, end + size
        part = codes[start:end]
        if views is not None:
            views.push_back(_view(faiss, part))
        elif size:
            lists.add_entries(number, size, faiss.swig_ptr(ids[start:end]), faiss.swig_ptr(part))
    if views is not None:
        _put_views(faiss, lists, sizes, ids, views)
    return views is not None


def _empty_views(faiss: Any, lists: Any) -> Any | None:
    """Return a vector of views; None if this faiss has none, or other lists."""
    kind = getattr(faiss, "MaybeOwnedVectorUInt8Vector", None)
    owned = getattr(faiss, "MaybeOwnedVectorUInt8", None)
    if kind is None or not hasattr(owned, "create_view") or not hasattr(lists, "codes"):
        return None
    return kind()


def _view(faiss: Any, part: Shaped[Any, "n b"]) -> Any:
    """Return a view that keeps nothing alive: its owner is the null of an empty vector."""
    vector = faiss.MaybeOwnedVectorUInt8
    if not part.size:
        return vector()
    return vector.create_view(faiss.swig_ptr(part), part.size, vector().owner)


def _put_views(
    faiss: Any, lists: Any, sizes: Int64[Any, " l"], ids: Int64[Any, " n"], views: Any
) -> None:
    width = lists.code_size
    lists.code_size = 0  # so that resizing makes room for the ids alone
    end = 0
    for number, size in enumerate(sizes.tolist()):
        start, end = end, end + size
        if size:
            lists.resize(number, size)
            faiss.rev_swig_ptr(lists.get_ids(number), size)[:] = ids[start:end]
    lists.code_size = width
    lists.codes.swap(views)
