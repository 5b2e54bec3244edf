"""Groups of numbers put together: batches of one matrix, and statistics of several matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scio.pp.stats import GeneStats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Tables per batch and gene that `GeneStats.save` writes.  "exact" ones are of cells whose values all
# are counts (integers, not negative), "inexact" ones of the other cells.
EXACT = ("exact_n_positive", "exact_maximum", "exact_sums", "exact_squares")
INEXACT = ("mean", "m2", "sum", "maximum", "n_nonzero", "n_positive", "is_fractional")
MOMENTS = (("scaled_mean", "scaled_m2"), ("log_mean", "log_m2"))


Group = tuple[Any, Floats, Floats]


def column(counts: NDArray[Any]) -> Floats:
    return counts.astype(np.float64)[:, None]


def join(a: Group, b: Group) -> Group:
    """Both groups of (n, mean, m2) together, as ``scio_spread_join`` does."""
    n = a[0] + b[0]
    some = np.where(n == 0, 1, n)
    delta = b[1] - a[1]
    mean = a[1] + delta * (b[0] / some)
    m2 = a[2] + b[2] + delta * delta * (a[0] * b[0] / some)
    mean = np.where(a[0] == 0, b[1], np.where(b[0] == 0, a[1], mean))
    m2 = np.where(a[0] == 0, b[2], np.where(b[0] == 0, a[2], m2))
    return n, mean, m2


def ddof1(n: Any, m2: Floats) -> Floats:
    out: Floats = np.where(n > 1, m2 / np.where(n > 1, n - 1, 1), 0.0)
    return out


def add_exact(halves: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sum over the first axis of 128-bit numbers given as (low, high), shape (1, n, 2)."""
    out = np.zeros((1, *halves.shape[1:]), dtype=np.uint64)
    for part in halves:
        _add_halves(out[0], part)
    return out


def _add_halves(to: NDArray[np.uint64], more: NDArray[np.uint64]) -> None:
    low = to[..., 0] + more[..., 0]  # modulo 2^64
    to[..., 1] += more[..., 1] + (low < to[..., 0])
    to[..., 0] = low


def merge(a: GeneStats, b: GeneStats) -> GeneStats:
    _check_alike(a, b)
    batches: list[Any] = [*a.batches, *(name for name in b.batches if name not in a.batches)]
    places = [batches.index(name) for name in b.batches]
    n_batches = len(batches)
    shape = (n_batches, a.n_vars)
    n_cells = _widen(a.n_cells, n_batches)
    n_cells[places] += b.n_cells
    rows = _widen(column(a.n_cells), n_batches), _widen(column(b.n_cells), n_batches, places)
    tables: dict[str, NDArray[Any] | None] = {}
    for key in ("n_exact", "n_inexact"):
        tables[key] = _widen(a._table(key), n_batches) + _widen(b._table(key), n_batches, places)
    for key in EXACT:
        tables[key] = _widen(a._table(key), n_batches)
    _merge_exact(tables, b, n_batches, places)
    tables |= _merge_inexact(a, b, n_batches, places)
    for mean, m2 in MOMENTS:
        tables[mean] = tables[m2] = None
        if a.tables[mean] is not None and b.tables[mean] is not None:
            groups = (
                (rows[0], _widen(a._table(mean), n_batches), _widen(a._table(m2), n_batches)),
                (
                    rows[1],
                    _widen(b._table(mean), n_batches, places),
                    _widen(b._table(m2), n_batches, places),
                ),
            )
            _, tables[mean], tables[m2] = join(*groups)
    codes = np.array(places, dtype=np.int32)[b.batch_codes] if places else b.batch_codes
    return replace(
        a,
        batches=batches,
        n_cells=n_cells,
        totals=np.concatenate([a.totals, b.totals]),
        n_genes=np.concatenate([a.n_genes, b.n_genes]),
        batch_codes=np.concatenate([a.batch_codes, codes]),
        fingerprint={
            "n_obs": a.n_obs + b.n_obs,
            "n_vars": a.n_vars,
            "parts": [*_parts_of(a), *_parts_of(b)],
        },
        name=f"{a.name} + {b.name}",
        facts=_merge_facts(a, b),
        tables=tables,
        values=_merge_values(a, b, shape, places),
        _cache={},
    )


def _parts_of(stats: GeneStats) -> list[Any]:
    parts: list[Any] = stats.fingerprint.get("parts", [stats.fingerprint])
    return parts


def _check_alike(a: GeneStats, b: GeneStats) -> None:
    if a.n_vars != b.n_vars or not np.array_equal(a.var_names, b.var_names):
        differ = "their numbers differ"
        if a.n_vars == b.n_vars:
            at = int(np.flatnonzero(a.var_names != b.var_names)[0])
            differ = f"gene {at} is {a.var_names[at]!r} and {b.var_names[at]!r}"
        message = f"{a.name} and {b.name} have other genes: {differ}"
        raise ValueError(message)
    for key in ("target_sum", "factor"):
        if getattr(a, key) != getattr(b, key):
            message = (
                f"{a.name} and {b.name} were made with different {key}: "
                f"{getattr(a, key)!r} and {getattr(b, key)!r}"
            )
            raise ValueError(message)
    if (a.batches == [None]) != (b.batches == [None]):
        message = f"one of {a.name} and {b.name} has batches, the other has none"
        raise ValueError(message)


def _widen(table: NDArray[Any], n_batches: int, places: list[int] | None = None) -> NDArray[Any]:
    """A copy with room for `n_batches`, rows at `places` (None: the first ones), zeros elsewhere."""
    out = np.zeros((n_batches, *table.shape[1:]), dtype=table.dtype)
    out[slice(len(table)) if places is None else places] = table
    return out


def _merge_exact(
    tables: dict[str, NDArray[Any] | None], b: GeneStats, n_batches: int, places: list[int]
) -> None:
    for key in EXACT:
        table, more = tables[key], _widen(b._table(key), n_batches, places)
        assert table is not None
        if key == "exact_maximum":
            np.maximum(table, more, out=table)
        elif key == "exact_n_positive":
            table += more
        else:
            _add_halves(table, more)


def _merge_inexact(
    a: GeneStats, b: GeneStats, n_batches: int, places: list[int]
) -> dict[str, NDArray[Any] | None]:
    if a.is_exact and b.is_exact:
        return dict.fromkeys(INEXACT)
    first = {k: _widen(a._table(k), n_batches) for k in (*INEXACT, "n_inexact")}
    second = {k: _widen(b._table(k), n_batches, places) for k in (*INEXACT, "n_inexact")}
    _, mean, m2 = join(
        (column(first["n_inexact"]), first["mean"], first["m2"]),
        (column(second["n_inexact"]), second["mean"], second["m2"]),
    )
    most = [np.where(t["n_nonzero"] > 0, t["maximum"], -np.inf) for t in (first, second)]
    maximum = np.maximum(*most)
    return {
        "mean": mean,
        "m2": m2,
        "sum": first["sum"] + second["sum"],
        "maximum": np.where(np.isfinite(maximum), maximum, 0.0),
        "n_nonzero": first["n_nonzero"] + second["n_nonzero"],
        "n_positive": first["n_positive"] + second["n_positive"],
        "is_fractional": (first["is_fractional"] != 0) | (second["is_fractional"] != 0),
    }


def _merge_facts(a: GeneStats, b: GeneStats) -> dict[str, Any]:
    facts: dict[str, Any] = {
        key: a.facts[key] + b.facts[key] for key in a.facts if key.startswith("n_")
    }
    for key in ("fractional", "negative", "not_finite"):
        theirs = b.facts[key]
        if theirs is not None:
            theirs = (theirs[0] + a.n_obs, *theirs[1:])
        facts[key] = a.facts[key] if a.facts[key] is not None else theirs
    return facts


def _merge_values(
    a: GeneStats, b: GeneStats, shape: tuple[int, int], places: list[int]
) -> tuple[Ints, NDArray[np.uint64], Ints] | None:
    if a.values is None or b.values is None:
        return None
    n_places = shape[0] * shape[1]
    owners = []
    for stats, rows in ((a, range(len(a.batches))), (b, places)):
        assert stats.values is not None
        genes = np.arange(shape[1], dtype=np.int64)
        place = np.concatenate([row * shape[1] + genes for row in rows])
        owners.append(np.repeat(place, np.diff(stats.values[0])))
    owner = np.concatenate(owners)
    values = np.concatenate([a.values[1], b.values[1]])
    counts = np.concatenate([a.values[2], b.values[2]])
    order = np.lexsort((values, owner))
    owner, values, counts = owner[order], values[order], counts[order]
    is_new = np.ones(len(owner), dtype=bool)
    is_new[1:] = (owner[1:] != owner[:-1]) | (values[1:] != values[:-1])
    first = np.flatnonzero(is_new)
    if len(first):
        counts = np.add.reduceat(counts, first)
    indptr = np.zeros(n_places + 1, dtype=np.int64)
    np.cumsum(np.bincount(owner[first], minlength=n_places), out=indptr[1:])
    return indptr, values[first], counts
