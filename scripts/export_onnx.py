"""Write a stage-2 checkpoint as an ONNX file, and check in onnxruntime that it gives the same logits.

    bash scripts/export_onnx.sh --pretrain weights/stage2_refcocog_umd.pth --output stage2.onnx

Inputs: `image` float32 (1, 3, S, S), normalised as in dataset/photos.py; `tokens` int64 (1, T) of clip.tokenize, one
sentence. Output: `logits` float32 (1, 1, S, S); positive is foreground. (The number of sentences is fixed: PyTorch's
exporter makes it a constant inside the text encoder.)
"""

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.start import run_script

import numpy as np
import torch
from torch import nn

from clip import tokenize
from model.build import load_network
from utils.errors import UserError
from utils.files import atomic_write
from utils.options import Parser, input_size, query_length

TOLERANCE = 1e-3  # of logits around 10; both sides compute in float32
SENTENCES = ["man on the right", "the red star"]  # the file is traced with the first and checked with both


class OnePhoto(nn.Module):
    """A segmentation network as a function of one photo and the tokens of one sentence."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.network.respond(image, tokens, torch.zeros_like(tokens[:, 0])).maps


def main() -> None:
    example = "bash scripts/export_onnx.sh --pretrain weights/stage2_refcocog_umd.pth --output stage2.onnx"
    parser = Parser(__doc__, example)
    parser.add_argument("--pretrain", required=True, metavar="FILE", help="a checkpoint of stage 2")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the ONNX file to write")
    parser.add_argument("--size", type=input_size, help="photos are resized to SIZE x SIZE (default: as in training)")
    parser.add_argument("--max_query_len", type=query_length, help="tokens per sentence (default: as in training)")
    args = parser.parse_args()
    network = load_network(args.pretrain, stage=2)
    trained = network.architecture
    size, length = args.size or trained.input_size, args.max_query_len or trained.query_length
    difference = export(OnePhoto(network), args.output, size, length)
    print(f"{args.output} differs from the network by {difference:.1e} at most")


def export(module: OnePhoto, file: Path, size: int, length: int) -> float:
    """Write `module` for photos of `size` x `size` pixels and `length` tokens; returns the largest difference.

    Raises UserError where packages are missing, or the difference is not below TOLERANCE; then nothing is written.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if not find_spec(name)]
    if missing:
        raise UserError(f"{', '.join(missing)} is not installed; run: pip install -r requirements-onnx.txt")
    from onnxruntime import InferenceSession  # an extra

    tokens = tokenize(SENTENCES, length)
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    names = {"input_names": ["image", "tokens"], "output_names": ["logits"]}
    program = torch.onnx.export(module.eval(), (image, tokens[:1]), dynamo=True, verbose=False, **names)
    content = program.model_proto.SerializeToString()
    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = 0.0
    for sentence in tokens.split(1):
        (found,) = session.run(None, {"image": image.numpy(), "tokens": sentence.numpy()})
        with torch.inference_mode():
            difference = max(difference, float(np.abs(found - module(image, sentence).numpy()).max()))
    if not difference < TOLERANCE:
        raise UserError(f"the ONNX file would differ from the network by {difference:.1e}; it is not written")
    with atomic_write(file) as opened:
        opened.write(content)
    return difference


if __name__ == "__main__":
    run_script(main)
