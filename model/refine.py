"""Sharp outlines: SAM 2 cuts the object, and the response map tells it where (optional, `--sam`).

SAM has been trained with masks (SA-1B). Masks that it cuts are therefore not "without masks in training", except of the
user's own data.

A response map knows where, not how far. So the prompts come from it, and of SAM's three masks the one that agrees best
with it is taken, not the one that SAM scores best: its score prefers parts. The mask at hand stays where none agrees
better. No constant here was chosen by looking at a mask.
"""

import math
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from scipy import ndimage

from utils.errors import UserError, reason

REVISIONS = {"facebook/sam2.1-hiera-tiny": "de431c4043854a71d8101e17995dfe596bf101a5"}  # of names on the hub
CELLS = 10  # of the response grid along the longer side: the published 320 pixels at stride 32
MOST_POINTS = 3
PADDING = -10  # the label of a point that SAM ignores; all sentences need equally many
Point = tuple[int, int]  # x, y in pixels


class Prompt(NamedTuple):
    """What SAM is told about one object."""

    inside: list[Point]
    outside: list[Point]
    box: tuple[int, int, int, int] | None  # x1, y1, x2, y2 in pixels


class Clicks(NamedTuple):
    """Points that a person adds to the prompt of a photo's first sentence."""

    inside: tuple[Point, ...] = ()
    outside: tuple[Point, ...] = ()


NO_CLICKS = Clicks()


class Cutter(Protocol):
    """What cuts masks out of a photo. `Sam` is one; tests have another."""

    def encode(self, photo: np.ndarray) -> Any:
        """All that does not depend on prompts, of an RGB photo uint8 (H, W, 3)."""

    def cut(self, encoded: Any, prompts: Sequence[Prompt], size: tuple[int, int]) -> Iterator[np.ndarray]:
        """For each prompt some masks to choose from, bool (K, H, W), at `size` (H, W), which prompts refer to.

        All prompts have a box, or none has.
        """


def core(response: np.ndarray) -> np.ndarray:
    """Where a response exceeds half its maximum, bool (H, W); nowhere if it is nowhere positive."""
    return response > max(response.max(), 0) / 2


def interior_points(response: np.ndarray) -> list[Point]:
    """At most `MOST_POINTS` of a response's `core`, the strongest first, at least a cell of the response grid apart.

    They are the maxima of the response times the distance to the core's border, which the photo's edge is part of: of
    one connected region with one maximum a point well inside it.
    """
    # Padded: at the photo's edge the distance is 1.
    depth = ndimage.distance_transform_edt(np.pad(core(response), 1))[1:-1, 1:-1] * response
    cell = math.ceil(max(response.shape) / CELLS)
    maxima = (depth > 0) & (depth == ndimage.maximum_filter(depth, 2 * cell + 1, mode="constant"))
    points: list[Point] = []
    rows, columns = np.nonzero(maxima)
    for place in np.argsort(-depth[maxima], kind="stable"):
        point = int(columns[place]), int(rows[place])
        if len(points) < MOST_POINTS and all(np.hypot(point[0] - x, point[1] - y) > cell for x, y in points):
            points.append(point)
    return points


def prompts_of(responses: Sequence[np.ndarray], refs: Sequence[int]) -> list[Prompt | None]:
    """The prompt for each response (H, W) of one photo; None where it is nowhere positive.

    The box is that of the core. The strongest points of other refs' responses are outside, where they are not in the
    core: `refs` has the ref of each response, because two sentences of a ref name the same thing.
    """
    every = [interior_points(response) for response in responses]
    prompts: list[Prompt | None] = []
    for response, ref, points in zip(responses, refs, every, strict=True):
        if not points:
            prompts.append(None)
            continue
        region = core(response)
        others = {found[0] for found, other in zip(every, refs, strict=True) if found and other != ref}
        rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
        box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        prompts.append(Prompt(points, sorted((x, y) for x, y in others if not region[y, x]), box))
    return prompts


def agreement(response: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """How well K masks fit a response in 0..1, float64 (K,): the sum of their minima over the sum of their maxima."""
    both = np.array([response[mask].sum(dtype=np.float64) for mask in masks])
    either = np.array([mask.sum() for mask in masks]) + response.sum(dtype=np.float64) - both
    return both / np.maximum(either, 1e-9)


@torch.inference_mode()
def refine(
    cutter: Cutter,
    encoded: Any,
    responses: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    refs: Sequence[int],
    clicks: Clicks = NO_CLICKS,
) -> list[np.ndarray]:
    """The masks of one photo, bool (H, W) each, cut by `cutter`; the very array that came in where that is kept.

    encoded: the photo, by `cutter.encode`. responses: float32 (H, W) each, at most 1. refs: the ref of each. A mask is
    kept where it is empty, or agrees with the response at least as well as each that was cut, but for a first mask with
    `clicks`, because the person who clicks has rejected it.
    """
    refined = list(masks)
    positive = [response.clip(min=0) * mask.any() for response, mask in zip(responses, masks, strict=True)]
    prompts = prompts_of(positive, refs)
    if any(clicks):
        given = prompts[0] or Prompt([], [], None)
        prompts[0] = Prompt([*given.inside, *clicks.inside], [*given.outside, *clicks.outside], None)
    boxed = [place for place, prompt in enumerate(prompts) if prompt and prompt.box]
    bare = [place for place, prompt in enumerate(prompts) if prompt and not prompt.box]
    for places in filter(None, (boxed, bare)):
        cut = cutter.cut(encoded, [prompts[place] for place in places], masks[0].shape)
        for place, candidates in zip(places, cut, strict=True):
            choice = [*candidates] if place in bare else [masks[place], *candidates]  # the first wins a tie
            refined[place] = choice[agreement(positive[place], choice).argmax()]
    return refined


class Sam:
    """SAM 2 from Hugging Face's hub or a folder; SAM 3's tracker where the folder holds that.

    UserError where the packages or the weights are not there, or where weights are missing in the file.
    """

    def __init__(self, name: str | Path, device: torch.device | str = "cpu"):
        if not find_spec("transformers"):
            raise UserError("--sam needs transformers; run: pip install -r requirements-sam.txt")
        if not Path(name).is_dir() and not re.fullmatch(r"[\w-]+/[\w.-]+", str(name)):
            raise UserError(f"--sam {name} is no folder, and no name on the hub such as {next(iter(REVISIONS))}")
        import huggingface_hub  # extras
        import transformers

        transformers.logging.set_verbosity_error()  # what it would warn of is checked below
        transformers.logging.disable_progress_bar()
        huggingface_hub.utils.enable_progress_bars()  # of a download, which the line above hides, too
        try:
            source = {"pretrained_model_name_or_path": name, "revision": REVISIONS.get(str(name), "main")}
            source["trust_remote_code"] = False  # else the user is asked whether to run what others wrote
            config = transformers.AutoConfig.from_pretrained(**source)
            kind = "Sam3Tracker" if config.model_type.startswith("sam3_tracker") else "Sam2"
            # Named, not found by AutoModel: the hub's files are of type sam2_video, whose image part this is.
            self.model, report = getattr(transformers, f"{kind}Model").from_pretrained(
                **source, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
            )
            self.processor = getattr(transformers, f"{kind}Processor").from_pretrained(**source)
        except Exception as error:  # a damaged file can raise almost anything
            words = f"--sam {name} cannot be used ({reason(error)})"
            raise UserError(f"{words}; give a folder with config.json, model.safetensors and the processor's") from None
        if lacking := sorted([*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]):
            raise UserError(
                f"--sam {name} lacks {len(lacking)} of SAM's parameters, such as {lacking[0]}; give another"
            )
        self.model = self.model.eval().to(device)

    def encode(self, photo: np.ndarray) -> list[torch.Tensor]:
        """SAM's features of an RGB photo, uint8 (H, W, 3), which it resizes to a square."""
        # Copied: torch warns of arrays that cannot be written to.
        pixels = self.processor(images=np.array(photo), return_tensors="pt")["pixel_values"]
        return self.model.get_image_embeddings(pixels.to(self.model.device))

    def cut(
        self, encoded: list[torch.Tensor], prompts: Sequence[Prompt], size: tuple[int, int]
    ) -> Iterator[np.ndarray]:
        """SAM's three masks for each prompt, bool (3, H, W), see `Cutter`."""
        most = max(len(prompt.inside) + len(prompt.outside) for prompt in prompts)
        points = [[*p.inside, *p.outside, *[(0, 0)] * (most - len(p.inside) - len(p.outside))] for p in prompts]
        labels = [([1] * len(p.inside) + [0] * len(p.outside) + [PADDING] * most)[:most] for p in prompts]
        boxes = [[list(map(float, prompt.box)) for prompt in prompts]] if prompts[0].box else None
        given = self.processor(
            original_sizes=[list(size)],
            input_points=[[[list(map(float, point)) for point in each] for each in points]],
            input_labels=[labels],
            input_boxes=boxes,
            return_tensors="pt",
        ).to(self.model.device)
        wanted = {name: given[name] for name in ("input_points", "input_labels", "input_boxes") if name in given}
        low = self.model(image_embeddings=encoded, **wanted, multimask_output=True).pred_masks[0]
        for masks in low.cpu():  # one sentence at a time: a photo may be large
            yield self.processor.post_process_masks(masks[None, None], [list(size)])[0][0].numpy()
