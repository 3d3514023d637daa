"""Data sets by name, and the loaders that training and evaluation read from."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Sampler

from dataset.known import DATA_SETS, known_data_set, known_splits
from dataset.references import Split, Tell, strict
from dataset.samples import EvalPhotos, TrainSamples, collate_photos
from utils.distributed import own_share, rank, world_size
from utils.errors import UserError

DATASETS = tuple(DATA_SETS)


def load_splits(
    dataset: str, root: str | Path, split_by: str, splits: Sequence[str], tell: Tell = strict
) -> dict[str, Split]:
    """The named splits of a data set, each once. UserError for a data set, files or splits that are not there.

    tell: is handed the error of each entry that cannot be used, which is then left out; by default it is raised.
    """
    root = Path(root)
    require_folder(root)
    known_splits(dataset, split_by)  # or it ends here
    return known_data_set(dataset).read(root, split_by, list(dict.fromkeys(splits)), tell)


def require_folder(root: Path) -> None:
    """UserError where the data folder is not there."""
    if not root.is_dir():
        raise UserError(f"the data folder {root} is not there; see data/README.md, or run: bash scripts/quickstart.sh")


class EpochBatches(Sampler[list[int]]):
    """Batches of shuffled indices; which, depends on (seed, epoch) alone, so that a training can go on anywhere.

    A step of the optimiser takes `accumulate` batches of each process. Each process takes its own part of every global
    batch. Refs that do not fill a step are left out of the epoch: stage 1's negatives are the other sentences of the
    batch.
    """

    def __init__(self, count: int, batch_size: int, seed: int, accumulate: int = 1):
        self.count, self.batch_size, self.seed, self.accumulate = count, batch_size, seed, accumulate
        self.epoch = self.first_step = 0
        if not self.steps:
            step = f"{batch_size} x {world_size()} processes" if world_size() > 1 else str(batch_size)
            step += f" x {accumulate} accumulated" if accumulate > 1 else ""
            raise UserError(f"the training split has {count} refs, fewer than a batch ({step}); lower --batch_size")

    @property
    def steps(self) -> int:
        """Of a whole epoch."""
        return self.count // (self.batch_size * world_size() * self.accumulate)

    def __len__(self) -> int:
        """Batches still to come in this epoch."""
        return (self.steps - self.first_step) * self.accumulate

    def start_at(self, epoch: int, step: int) -> None:
        self.epoch, self.first_step = epoch, step

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.count, generator=generator).tolist()
        for batch in range(self.first_step * self.accumulate, self.steps * self.accumulate):
            first = (batch * world_size() + rank()) * self.batch_size
            yield order[first : first + self.batch_size]


class TrainLoader:
    """Batches of training samples, from any place of any epoch on."""

    def __init__(self, samples: TrainSamples, batch_size: int, seed: int, workers: int, accumulate: int = 1):
        self.samples, self.accumulate = samples, accumulate
        self.batches = EpochBatches(len(samples), batch_size, seed, accumulate)
        self.loader = DataLoader(
            samples, batch_sampler=self.batches, num_workers=workers, pin_memory=torch.cuda.is_available()
        )

    def __len__(self) -> int:
        """Steps of an epoch."""
        return self.batches.steps

    def from_step(self, epoch: int, step: int) -> DataLoader:
        """The batches of `epoch` from `step` on. Workers start anew each time, so they know the epoch."""
        self.samples.set_epoch(epoch)
        self.batches.start_at(epoch, step)
        return self.loader

    def describe(self, references: Sequence[int]) -> str:
        """The refs with these indices, for a message."""
        return ", ".join(str(self.samples.split.references[index].ref_id) for index in references)


def eval_loader(photos: EvalPhotos, batch_size: int, workers: int) -> DataLoader:
    """This process's share of the photos, `batch_size` at a time."""
    return DataLoader(
        photos,
        batch_size=batch_size,
        sampler=own_share(range(len(photos))),
        num_workers=workers,
        collate_fn=collate_photos,
    )
