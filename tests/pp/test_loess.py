"""Loess against stored values of R, a plain NumPy one, and scikit-misc where that answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scio import _core
from tests.plain.loess import fits_at_vertices
from tests.plain.loess import loess as plain_loess

F64 = NDArray[np.float64]


def fit(x: F64, y: F64, span: float = 0.3) -> F64:
    return _core.loess(x, y, span)[0]


def test_seurats_expected_variances(shared_data: Path) -> None:
    """13,714 genes of pbmc3k: R's own answer, to the digits that R stored."""
    import pandas as pd

    table = pd.read_csv(shared_data / "expected" / "seurat_hvg_v3.csv.gz", index_col=0)
    mean, variance = table["mean"].to_numpy(), table["variance"].to_numpy()
    fitted, flags, counts = _core.loess(np.log10(mean), np.log10(variance), 0.3)
    np.testing.assert_allclose(10**fitted, table["variance.expected"], rtol=1e-11)
    assert counts == (30, 0, 0, 0)
    assert not flags.any()


@st.composite
def points(draw: st.DrawFn) -> tuple[F64, F64, float]:
    """Few points, many ties, any scale."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 120))
    x = rng.integers(0, draw(st.integers(1, n)), n) * draw(st.sampled_from([1.0, 1e-6, 1e4]))
    x = np.where(rng.random(n) < draw(st.sampled_from([0.0, 0.5])), rng.normal(size=n), x)
    return (
        x + draw(st.sampled_from([0.0, 1.0])),
        rng.normal(size=n),
        draw(st.sampled_from([0.01, 0.1, 0.3, 0.75, 1.0])),
    )


@given(points())
@settings(max_examples=150, deadline=None)
def test_plain_one(example: tuple[F64, F64, float]) -> None:
    x, y, span = example
    fitted, flags, (n_vertices, n_dropped, *_) = _core.loess(x, y, span)
    assert np.isfinite(fitted).all()
    assert n_vertices >= 2
    assert len(flags) == len(x)
    # the error of least squares goes with the square of the condition: compared where that is small
    if fits_at_vertices(x, y, span)[1][:, 2].min() > 1e-4:
        assert n_dropped == 0
        np.testing.assert_allclose(fitted, plain_loess(x, y, span), rtol=1e-6, atol=1e-6)


@given(seed=st.integers(0, 2**32), n=st.integers(30, 300), span=st.sampled_from([0.3, 0.6, 1.0]))
@settings(max_examples=25, deadline=None)
def test_scikit_misc(seed: int, n: int, span: float) -> None:
    """The library that scanpy calls, on points that it does not refuse."""
    import skmisc.loess as skmisc

    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = np.sin(x) + rng.normal(size=n) / 10
    model = skmisc.loess(x, y, span=span, degree=2)
    model.fit()
    np.testing.assert_allclose(fit(x, y, span), model.outputs.fitted_values, rtol=1e-9, atol=1e-9)


def test_scikit_misc_on_ties() -> None:
    import skmisc.loess as skmisc

    rng = np.random.default_rng(5)
    x = rng.integers(0, 60, 600) / 7
    y = np.cos(x) + rng.normal(size=600) / 10
    model = skmisc.loess(x, y, span=0.3, degree=2)
    model.fit()
    np.testing.assert_allclose(fit(x, y), model.outputs.fitted_values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [3, 4, 10, 1000])
def test_a_quadratic_is_reproduced(n: int) -> None:
    x = np.linspace(-2, 3, n) ** 3
    np.testing.assert_allclose(fit(x, 1 + x - x**2, 1.0), 1 + x - x**2, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3, 50, 1000])
def test_a_constant_is_reproduced(n: int) -> None:
    x = np.random.default_rng(0).integers(0, 20, n).astype(float)
    np.testing.assert_allclose(fit(x, np.full(n, 4.5)), np.full(n, 4.5), rtol=1e-13)


def test_all_x_equal_give_the_mean() -> None:
    y = np.array([1.0, 2.0, 6.0])
    fitted, flags, counts = _core.loess(np.full(3, -1.5), y, 0.3)
    np.testing.assert_allclose(fitted, np.full(3, 3.0), rtol=1e-15)
    assert (flags & 4).all()
    assert counts[3] == counts[0]


def test_a_window_of_ties_is_enlarged_and_said() -> None:
    x = np.concatenate([np.zeros(80), np.arange(1.0, 21.0)])
    fitted, flags, counts = _core.loess(x, x**2, 0.3)
    assert np.isfinite(fitted).all()
    assert counts[2] > 0
    assert (flags[:80] & 2).all()


def test_a_permutation_permutes_the_bits() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 200, 3000) / 13, rng.normal(size=3000)
    order = rng.permutation(3000)
    assert fit(x, y)[order].tobytes() == fit(x[order], y[order]).tobytes()


def test_a_hundred_thousand_points() -> None:
    x = np.random.default_rng(1).normal(size=100_000)
    fitted = fit(x, np.sin(x))
    inner = np.abs(x) < 1.5
    np.testing.assert_allclose(fitted[inner], np.sin(x[inner]), atol=0.02)


@pytest.mark.parametrize("span", [0.0, -0.3, 1.01, float("nan")])
def test_span_out_of_range(span: float) -> None:
    with pytest.raises(ValueError, match=r"span is .*, expected a number in \(0, 1\]"):
        fit(np.arange(5.0), np.arange(5.0), span)


def test_points_that_are_no_numbers() -> None:
    with pytest.raises(ValueError, match=r"point 1 is \(nan, 1\)"):
        fit(np.array([0.0, np.nan]), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="x has 2 items, y has 3"):
        fit(np.zeros(2), np.zeros(3))


def test_elementary_functions() -> None:
    """ln, ln(1 + x) and e^x within 2 units of the last place of NumPy's."""
    rng = np.random.default_rng(2)
    x = np.exp(rng.uniform(-700, 700, 20_000))
    np.testing.assert_array_max_ulp(_core.elementary("ln", x), np.log(x), 2)
    np.testing.assert_array_max_ulp(_core.elementary("ln_1p", x), np.log1p(x), 2)
    z = rng.uniform(-700, 700, 20_000)
    np.testing.assert_array_max_ulp(_core.elementary("exp", z), np.exp(z), 2)
    ends = np.array([0.0, -1.0, np.inf, np.nan, 5e-324])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(_core.elementary("ln", ends), np.log(ends))
    np.testing.assert_array_equal(
        _core.elementary("exp", np.array([-800.0, 800.0, np.nan, 0.0])), [0, np.inf, np.nan, 1]
    )
