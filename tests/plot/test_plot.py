"""Pictures: what is drawn, artist by artist, and how it looks beside a stored picture.

``python -m tests.plot.test_plot`` draws the stored pictures anew; look at them before they are committed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import matplotlib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images
from matplotlib.testing.decorators import remove_ticks_and_titles

import scio
from scio import plot
from scio.errors import KeyNotFoundError

BASELINE = Path(__file__).parent / "baseline"
RMS = 4.0  # of 255: edges are smoothed otherwise by another version; a moved point gives more
STYLE = {
    **matplotlib.rcParamsDefault,
    "font.family": "DejaVu Sans",
    "figure.dpi": 60,
    "savefig.dpi": 60,
}
STYLE.pop("backend", None)


def table(n_genes: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    means = rng.lognormal(0, 1.2, n_genes)
    norms = rng.normal(0, 1, n_genes)
    norms[5] = np.nan
    chosen = norms > np.sort(norms)[-42]
    return pd.DataFrame(
        {
            "means": means,
            "dispersions": means * np.exp(norms),
            "dispersions_norm": norms.astype(np.float32),
            "highly_variable": chosen,
        }
    )


def obs(n_cells: int = 250) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    totals = rng.lognormal(8, 0.5, n_cells)
    frame = pd.DataFrame(
        {
            "total_counts": totals,
            "n_genes_by_counts": np.rint(totals**0.8),
            "pct_counts_mt": rng.gamma(2, 2, n_cells),
            "sample": pd.Categorical(rng.choice(list("bac"), n_cells), categories=list("bacd")),
            "size_factors": totals / totals.mean() * rng.lognormal(0, 0.2, n_cells),
        }
    )
    frame.loc[3, "pct_counts_mt"] = np.nan
    return frame


def counts() -> np.ndarray:
    rng = np.random.default_rng(2)
    made = rng.poisson(rng.gamma(0.5, 4, 40) * rng.gamma(3, 0.4, (80, 1)))
    made[7] = 0
    return made


def adata() -> anndata.AnnData:
    made = anndata.AnnData(sp.csr_matrix(counts(), dtype=np.float32))
    made.var_names = [f"gene {i}" for i in range(40)]
    return made


def n_points(ax: Axes) -> list[int]:
    return [len(c.get_offsets()) for c in ax.collections]


# --- beside stored pictures

PICTURES: dict[str, Callable[[Axes], Axes]] = {
    "genes": lambda ax: plot.highly_variable_genes(table(), ax=ax),
    "genes_log": lambda ax: plot.highly_variable_genes(
        table(), column="dispersions", log=True, ax=ax
    ),
    "violin": lambda ax: plot.qc_violin(obs(), "pct_counts_mt", groupby="sample", ax=ax),
    "scatter": lambda ax: plot.qc_scatter(obs(), color="pct_counts_mt", ax=ax),
    "scatter_groups": lambda ax: plot.qc_scatter(obs(), color="sample", log=True, ax=ax),
    "highest": lambda ax: plot.highest_expr_genes(adata(), 12, ax=ax),
    "factors": lambda ax: plot.size_factors((obs()["size_factors"], obs()["total_counts"]), ax=ax),
}


def draw(name: str, path: Path) -> None:
    """Without words: letters differ between versions of the library that draws them."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4, 3))
        PICTURES[name](figure.add_axes((0.1, 0.1, 0.8, 0.8)))
        for ax in figure.axes:
            legend = ax.get_legend()
            if legend is not None:
                legend.remove()
        remove_ticks_and_titles(figure)
        for ax in figure.axes:
            ax.set(xlabel="", ylabel="")
        figure.savefig(path, metadata={"Software": None})


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_look_like_the_stored_ones(tmp_path, name):
    drawn = tmp_path / f"{name}.png"
    draw(name, drawn)
    assert (BASELINE / drawn.name).exists()
    difference = compare_images(str(BASELINE / drawn.name), str(drawn), tol=RMS)
    assert difference is None, difference


def test_the_comparison_sees_other_points(tmp_path, monkeypatch):
    monkeypatch.setitem(
        PICTURES, "genes", lambda ax: plot.highly_variable_genes(table().iloc[::2], ax=ax)
    )
    draw("genes", tmp_path / "genes.png")
    assert compare_images(str(BASELINE / "genes.png"), str(tmp_path / "genes.png"), tol=RMS)


# --- artist by artist


def test_genes_chosen_and_others_are_two_clouds():
    ax = plot.highly_variable_genes(table())
    n_chosen = int(table()["highly_variable"].sum())
    assert n_chosen == 40
    assert n_points(ax) == [259, 40]  # one gene has no dispersion
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["other genes (260)", "highly variable genes (40)"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mean", "normalised dispersion")
    assert to_hex(ax.collections[1].get_facecolor()[0]).upper() == plot.PALETTE[0]
    rows = table()[table()["highly_variable"]]
    np.testing.assert_allclose(
        ax.collections[1].get_offsets(), rows[["means", "dispersions_norm"]].to_numpy()
    )


@pytest.mark.parametrize(
    ("column", "label"),
    [
        ("variances_norm", "standardised variance"),
        ("residual_variances", "variance of Pearson residuals"),
        ("variances", "variance"),
    ],
)
def test_genes_of_every_flavour_have_their_column(column, label):
    columns = table().drop(columns=["dispersions", "dispersions_norm"])
    columns[column] = columns["means"]
    assert plot.highly_variable_genes(columns).get_ylabel() == label
    as_mapping = {name: columns[name].to_numpy() for name in columns}
    assert n_points(plot.highly_variable_genes(as_mapping)) == [260, 40]


def test_genes_of_an_anndata_and_logarithmic_axes():
    made = anndata.AnnData(np.zeros((2, 300), dtype=np.float32))
    made.var = table().set_index(made.var_names)
    made.var["means"] -= 1
    ax = plot.highly_variable_genes(made, log=True)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    above = (made.var["means"] > 0) & (made.var["dispersions_norm"] > 0)
    assert sum(n_points(ax)) == above.sum()
    with pytest.raises(ValueError, match="no value is above 0"):
        plot.highly_variable_genes(table().assign(means=0.0), log=True)


def test_violins_have_one_body_a_group_that_has_cells():
    ax = plot.qc_violin(obs(), "pct_counts_mt", groupby="sample")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["b", "a", "c"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("sample", "pct_counts_mt")
    bodies = [c for c in ax.collections if type(c).__name__.endswith("PolyCollection")]
    assert [to_hex(b.get_facecolor()[0]).upper() for b in bodies] == list(plot.PALETTE[:3])
    medians = obs().groupby("sample", observed=True)["pct_counts_mt"].median()  # skips NaN
    np.testing.assert_allclose([line.get_ydata()[0] for line in ax.lines], medians[list("bac")])


def test_a_violin_of_all_cells_on_a_logarithmic_scale():
    ax = plot.qc_violin(obs(), log=True)
    assert ax.get_ylabel() == "log10(1 + total_counts)"
    expected = np.log10(1 + obs()["total_counts"]).median()
    assert ax.lines[0].get_ydata()[0] == pytest.approx(expected)
    plot.qc_violin({"x": np.array([4.0])}, "x")  # one cell
    plot.qc_violin({"x": np.full(9, 4.0)}, "x")  # no spread


def test_scatter_of_cells():
    ax = plot.qc_scatter(obs())
    assert n_points(ax) == [250]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("total_counts", "n_genes_by_counts")
    coloured = plot.qc_scatter(obs(), color="pct_counts_mt")
    assert n_points(coloured) == [1, 249]  # the cell without a number is grey
    assert [a.get_ylabel() for a in coloured.figure.axes][1] == "pct_counts_mt"
    grouped = plot.qc_scatter(obs(), color="sample", log=True)
    assert [t.get_text() for t in grouped.get_legend().get_texts()] == ["b", "a", "c"]
    assert n_points(grouped) == obs()["sample"].value_counts()[list("bac")].to_list()


def test_many_points_become_pixels():
    many = {"total_counts": np.arange(1.0, 30_000), "n_genes_by_counts": np.arange(1.0, 30_000)}
    assert plot.qc_scatter(many).collections[0].get_rasterized()
    assert not plot.qc_scatter(obs()).collections[0].get_rasterized()


@pytest.mark.parametrize("form", ["AnnData", "dense", "file"])
def test_highest_genes_are_those_with_the_largest_mean_share(tmp_path, form):
    made = adata()
    made.write_h5ad(tmp_path / "x.h5ad")
    source = {"AnnData": made, "dense": counts(), "file": tmp_path / "x.h5ad"}[form]
    ax = plot.highest_expr_genes(source, n_top=5)
    full = counts()[np.arange(80) != 7]
    shares = 100 * full / full.sum(1, keepdims=True)
    top = np.argsort(-shares.mean(0), kind="stable")[:5]
    names = [str(g) if form == "dense" else f"gene {g}" for g in top]
    assert [t.get_text() for t in ax.get_yticklabels()] == names
    np.testing.assert_allclose(ax.lines[0].get_xdata(), shares[:, top].mean(0))
    low, high = np.percentile(shares[:, top], [25, 75], axis=0)
    np.testing.assert_allclose([p.get_x() for p in ax.patches], low, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose([p.get_width() for p in ax.patches], high - low, rtol=1e-4)
    assert ax.get_xlabel() == "% of the counts of a cell"


def test_highest_genes_sum_duplicates_and_show_what_there_is():
    double = sp.coo_matrix(([1, 2, 7], ([0, 0, 0], [1, 1, 0])), shape=(1, 3))
    ax = plot.highest_expr_genes(double, n_top=30)
    assert ax.lines[0].get_xdata().tolist() == [70, 30, 0]


def test_factors_lie_about_the_line_of_library_sizes():
    made = anndata.AnnData(np.zeros((250, 2), dtype=np.float32))
    made.obs = obs().set_index(made.obs_names)
    ax = plot.size_factors(made)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    np.testing.assert_allclose(
        ax.collections[0].get_offsets(), obs()[["total_counts", "size_factors"]]
    )
    (line,) = ax.lines
    slope = obs()["size_factors"].mean() / obs()["total_counts"].mean()
    np.testing.assert_allclose(line.get_ydata(), line.get_xdata() * slope)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("library size", "size factor")
    pair = (np.array([1, -1, 2]), np.array([10, 10, 0]))
    assert n_points(plot.size_factors(pair)) == [1]


# --- figures


def test_axes_of_the_caller_are_drawn_into_and_returned(tmp_path):
    figure = Figure()
    ax = figure.subplots()
    assert plot.qc_scatter(obs(), ax=ax, save=tmp_path / "a.pdf") is ax
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_a_figure_of_our_own_is_saved_with_its_font(tmp_path):
    with matplotlib.rc_context({"font.family": "monospace"}):
        ax = plot.qc_scatter(obs(), save=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert ax.xaxis.label.get_fontname() == "DejaVu Sans"
    with pytest.raises(ValueError, match="nonsense"):
        plot.qc_scatter(obs(), save=tmp_path / "a.nonsense")


SCRIPT = """
import sys, warnings
import numpy as np
import scio
assert "matplotlib" not in sys.modules
import scio.plot
assert "matplotlib" not in sys.modules
x = {"total_counts": np.ones(3), "n_genes_by_counts": np.ones(3)}
scio.plot.qc_scatter(x)
assert "matplotlib.pyplot" not in sys.modules
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
scio.plot.qc_scatter(x)
assert plt.get_fignums() == []
plt.ion()
scio.plot.qc_scatter(x)
assert plt.get_fignums() == [1]
plt.ioff()
shown = []
plt.show = lambda: shown.append(1)
scio.plot.qc_scatter(x, show=True)
assert shown == [1] and plt.get_fignums() == [1, 2]
plt.ion()
scio.plot.qc_scatter(x, show=False)
assert plt.get_fignums() == [1, 2]
"""


def test_pyplot_knows_only_what_is_shown():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_colours_of_the_palette_differ():
    assert len(set(plot.PALETTE)) == 8
    assert dir(plot)
    assert scio.plot is plot


# --- bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: plot.highly_variable_genes({"means": [1]}),
            KeyNotFoundError,
            "'highly_variable'; there are 'means'; call scio.pp.highly_variable_genes first",
        ),
        (
            lambda: plot.highly_variable_genes({"means": [1], "highly_variable": [True]}),
            KeyNotFoundError,
            "no column to draw: expected one of dispersions_norm",
        ),
        (lambda: plot.highly_variable_genes(3), TypeError, "got a int, expected an AnnData"),
        (lambda: plot.qc_violin(obs(), "total_count"), KeyNotFoundError, "mean 'total_counts'"),
        (lambda: plot.qc_violin(obs(), "sample"), TypeError, "'sample' holds no numbers"),
        (lambda: plot.qc_violin({"x": [np.nan]}, "x"), ValueError, "no cell has a number"),
        (lambda: plot.qc_violin({"x": [-1.0]}, "x", log=True), ValueError, "needs 0 or more"),
        (lambda: plot.qc_scatter(obs(), color="batch"), KeyNotFoundError, "no column 'batch'"),
        (
            lambda: plot.qc_scatter(
                {"total_counts": range(9), "n_genes_by_counts": range(9), "s": list("abcdefghi")},
                color="s",
            ),
            ValueError,
            "9 labels, 8 can be told apart",
        ),
        (lambda: plot.highest_expr_genes(counts(), 0), ValueError, "n_top is 0"),
        (lambda: plot.highest_expr_genes(counts() * 0), ValueError, "none of 80 cells has counts"),
        (lambda: plot.size_factors(([1], [1, 2])), ValueError, r"shape \(1,\), totals \(2,\)"),
        (lambda: plot.size_factors(([0.0], [1])), ValueError, "no value is above 0"),
        (lambda: plot.size_factors(adata()), KeyNotFoundError, "pooled_size_factors first"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


if __name__ == "__main__":
    BASELINE.mkdir(exist_ok=True)
    for each in PICTURES:
        draw(each, BASELINE / f"{each}.png")
