"""Fitted pipelines that are kept, so that a config which is built again is not fitted again."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scio import _core
from scio.data._state import Fingerprint
from scio.data.preprocessing import PreprocessingPipeline
from scio.errors import IOFormatError, ScioWarning

if TYPE_CHECKING:
    from scio.data.dataset import CellDataset

_FOLDER = "pipelines"


def fit_cached(
    pipeline: PreprocessingPipeline,
    training: CellDataset,
    whole: CellDataset,
    files: Sequence[str | os.PathLike[str]],
    cache: Path | None,
) -> PreprocessingPipeline:
    """Fit on `training`, or load what was fitted on the same cells of the same files before.

    Parameters
    ----------
    pipeline : PreprocessingPipeline
        Not fitted.
    training, whole : CellDataset
        The part that genes are learned from; all cells, which get size factors.
    files : sequence of path
        Of the datasets.
    cache : Path or None
        Directory of the cache; None: always fit.

    Warns
    -----
    ScioWarning
        If the fitted pipeline cannot be kept.
    """
    if cache is None:
        return pipeline.fit(training, factors_for=whole)
    path = cache / _FOLDER / f"{_key(pipeline, training, whole, files)}.json"
    if path.exists():
        try:
            return PreprocessingPipeline.load(path)
        except IOFormatError:
            pass  # cut short or of another version: made anew
    pipeline.fit(training, factors_for=whole)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pipeline.save(path)
    except OSError as error:
        warnings.warn(ScioWarning(f"the fitted pipeline could not be kept: {error}"), stacklevel=4)
    return pipeline


def _hash_of(names: Iterable[object]) -> str:
    return hashlib.sha256("\0".join(map(str, names)).encode()).hexdigest()


def _key(
    pipeline: PreprocessingPipeline,
    training: CellDataset,
    whole: CellDataset,
    files: Sequence[str | os.PathLike[str]],
) -> str:
    """Hash of all that a fit depends on."""
    stats = [os.stat(path) for path in files]
    prints = [Fingerprint.of(dataset) for dataset in (training, whole)]
    content = {
        "version": _core.__version__,
        "pipeline": pipeline.settings(),
        "matrix": training.store.matrix,
        "files": [[s.st_size, s.st_mtime_ns] for s in stats],
        "genes": [_hash_of(source.genes()) for source in training.store.sources],
        "cells": [[p.vocabulary, p.cells, p.sources] for p in prints],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:40]
