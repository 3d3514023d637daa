"""Fetch data sets or published checkpoints.

    bash scripts/download_data.sh coco refcocog
    bash scripts/download_weights.sh stage2_refcocog_umd --mirror https://example.org/tris

Stopped, the same command goes on where it was.
"""

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.download import Remote, fetch_all, mirrored, unzip
from utils.errors import UserError, run_script
from utils.options import Parser

COCO = "https://images.cocodataset.org/zips"
# The annotations' own host (bvisionweb1.cs.unc.edu) is gone; the Internet Archive has kept its files.
REFER = "https://web.archive.org/web/20220413011718/https://bvisionweb1.cs.unc.edu/licheng/referit/data"
REFERIT = "annotations/train.pickle, annotations/test.pickle and images/*.jpg"


class Archive(NamedTuple):
    """A zip file, the address of its folder where one is known, and what it is unpacked to."""

    name: str
    address: str | None
    folder: str  # below data/
    leaves: str  # below data/: there when it has been unpacked


DATA = {
    "coco": Archive("train2014.zip", COCO, "", "train2014"),
    "refcoco": Archive("refcoco.zip", REFER, "refer", "refer/refcoco/instances.json"),
    "refcoco+": Archive("refcoco+.zip", REFER, "refer", "refer/refcoco+/instances.json"),
    "refcocog": Archive("refcocog.zip", REFER, "refer", "refer/refcocog/instances.json"),
    "referit": Archive("referit.zip", None, "", "referit/annotations"),
}
TRAINED_ON = ("refcoco", "refcoco+", "refcocog_umd", "refcocog_google", "referit")
BOTH_STAGES = {name: [f"stage1_{name}", f"stage2_{name}"] for name in TRAINED_ON}
WEIGHTS = BOTH_STAGES | {file: [file] for files in BOTH_STAGES.values() for file in files}  # name -> files without .pth


def main() -> None:
    parser = Parser(
        "Fetch data sets into data/, or published checkpoints into weights/. Stopped, it goes on where it was.",
        "bash scripts/download_data.sh coco refcocog\n"
        "  bash scripts/download_weights.sh stage2_refcocog_umd --mirror URL",
    )
    parser.add_argument("kind", choices=["data", "weights"], help="given by download_data.sh and download_weights.sh")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"data: {', '.join(DATA)}; weights: {', '.join(TRAINED_ON)} (both stages), stage1_NAME, stage2_NAME "
        "(default: all, of data those with an address)",
    )
    parser.add_argument("--mirror", metavar="URL", help="a folder with files of the same names, asked instead")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where they go (default: data, weights)")
    args = parser.parse_args()
    known = DATA if args.kind == "data" else WEIGHTS
    unknown = [name for name in args.names if name not in known]
    if unknown:
        raise UserError(f"there is no '{unknown[0]}' to fetch; known are {', '.join(known)}")
    fetch = fetch_data if args.kind == "data" else fetch_weights
    fetch(args.names, args.output or Path(args.kind), args.mirror)


def fetch_data(names: list[str], folder: Path, mirror: str | None) -> None:
    """Fetch and unpack the archives whose contents are not there; without names all that have an address."""
    names = names or [name for name, archive in DATA.items() if mirror or archive.address]
    wanted = [DATA[name] for name in names if not _unpacked(DATA[name], folder)]
    homeless = [archive for archive in wanted if not (mirror or archive.address)]
    if homeless:
        raise UserError(
            f"no address of ReferIt's files is known; put {REFERIT} into {folder / 'referit'}, or name a place "
            f"that has them as {homeless[0].name}: --mirror URL"
        )
    fetch_all([_remote(archive, folder, mirror) for archive in wanted])
    for archive in wanted:
        unzip(folder / archive.name, folder / archive.folder)
        if not (folder / archive.leaves).exists():
            raise UserError(
                f"{folder / archive.name} holds no {Path(archive.leaves).name}; fetch it from another place"
            )
        (folder / archive.name).unlink()
        print(f"{folder / archive.leaves} is there")


def _unpacked(archive: Archive, folder: Path) -> bool:
    """Wholly: an archive is removed when all of it has been unpacked."""
    return (folder / archive.leaves).exists() and not (folder / archive.name).exists()


def _remote(archive: Archive, folder: Path, mirror: str | None) -> Remote:
    if mirror:
        return mirrored(mirror, archive.name, folder / archive.name)
    return Remote(f"{archive.address}/{archive.name}", folder / archive.name)


def fetch_weights(names: list[str], folder: Path, mirror: str | None) -> None:
    """Fetch the checkpoints that are not there, without names all; no address of theirs is known for certain."""
    files = dict.fromkeys(f"{file}.pth" for name in names or TRAINED_ON for file in WEIGHTS[name])
    missing = [file for file in files if not (folder / file).exists()]
    if missing and not mirror:
        raise UserError(
            f"no address of {', '.join(missing)} is known; put them into {folder}, or name a place: --mirror URL"
        )
    fetch_all([mirrored(mirror, file, folder / file) for file in missing])


if __name__ == "__main__":
    run_script(main)
