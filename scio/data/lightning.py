"""Cells for Lightning's Trainer; import this module only where Lightning is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scio._optional import require
from scio.data.dataloader import CellDataLoader

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule as _Base

    from scio.data.dataset import CellDataset
else:
    _Base = require("lightning.pytorch", "scio.data.lightning").LightningDataModule

__all__ = ["CellDataModule"]

PARTS = ("train", "val", "test", "predict")
# Whatever the training loader has: every cell once, in the order of the files.
_IN_ORDER = {"shuffle": False, "drop_last": False, "sampler": None, "batch_sampler": None}


class CellDataModule(_Base):
    """Loaders over the parts of a dataset, whose place is kept in Lightning's checkpoints.

    Parameters
    ----------
    parts : mapping of str to CellDataset
        ``"train"`` and, as wanted, ``"val"``, ``"test"``, ``"predict"``: what `CellDataset.split`
        returns.
    evaluation : mapping, optional
        Arguments of `CellDataLoader` for the parts other than "train", in place of those in `options`.
    **options
        Arguments of `CellDataLoader`.  For the parts other than "train" `shuffle` and `drop_last` are
        False and samplers are left out.

    Raises
    ------
    ValueError
        If there is no such part.
    MissingDependencyError
        Without Lightning, when this module is imported.

    Notes
    -----
    The checkpoint holds where the training loader stands; ``Trainer.fit(…, ckpt_path=…)`` goes on with
    the very next batch.  Lightning does the same for a `CellDataLoader` that is given to ``fit`` by
    itself, but forgets its place in the middle of an epoch when the number of steps was asked for before
    (``trainer.estimated_stepping_batches``, as for OneCycleLR); this module does not.

    Ranks are found when a loader is made, which Lightning does in every process of a strategy.

    Examples
    --------
    >>> from scio.data.lightning import CellDataModule  # doctest: +SKIP
    >>> data = CellDataModule(cells.split({"train": 0.9, "val": 0.1}, seed=0))  # doctest: +SKIP
    >>> trainer.fit(model, data, ckpt_path="last")  # doctest: +SKIP
    """

    def __init__(
        self,
        parts: Mapping[str, CellDataset],
        *,
        evaluation: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        unknown = sorted(set(parts) - set(PARTS))
        if unknown or "train" not in parts:
            message = f"parts are 'train' and any of {PARTS[1:]}, not {sorted(parts)}"
            raise ValueError(message)
        self.parts = dict(parts)
        self._options = options
        self._evaluation = {**options, **_IN_ORDER, **(evaluation or {})}
        self._train: CellDataLoader | None = None
        self._saved: Mapping[str, Any] | None = None

    def train_dataloader(self) -> CellDataLoader:
        """Make the loader of "train", at the place that a checkpoint had if one was loaded."""
        self._train = CellDataLoader(self.parts["train"], **self._options)
        if self._saved is not None:
            self._train.load_state_dict(self._saved)
            self._saved = None
        return self._train

    def val_dataloader(self) -> CellDataLoader | list[Any]:
        """Make the loader of "val"; an empty list, which Lightning skips, where there is none."""
        return self._other("val")

    def test_dataloader(self) -> CellDataLoader | list[Any]:
        """Make the loader of "test"."""
        return self._other("test")

    def predict_dataloader(self) -> CellDataLoader | list[Any]:
        """Make the loader of "predict"."""
        return self._other("predict")

    def _other(self, part: str) -> CellDataLoader | list[Any]:
        if part not in self.parts:
            return []
        return CellDataLoader(self.parts[part], **self._evaluation)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training loader; Lightning puts it into the checkpoint."""
        return {} if self._train is None else {"train": self._train.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state for the training loader that will be made."""
        self._saved = state_dict.get("train")
