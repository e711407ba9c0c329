"""A training step of EMA quantizers at equal size: Mosaics, vector-quantize-pytorch, diffusers; process time, float32.

    python tests/benchmarks/bench_quantizers.py                             # two sizes, about a minute
    python tests/benchmarks/bench_quantizers.py --sizes 256x16x64           # N x D x K, as many as you like

A step is forward and backward of the commitment loss and of what a decoder would send back, and the update of the
codebook. Each engine runs in a process of its own, so that its peak memory can be read: the largest resident size
minus that before the first step of this size, after a tiny one that loads the libraries. The best of `--repeats`
steps counts. Speeds depend on the machine and on what else it does; the ratios of one run are what to compare.

vector-quantize-pytorch is optional (`pip install vector-quantize-pytorch`). The quantizer of diffusers has no EMA, so
its step is without one.
"""

import argparse
import importlib.util
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

from mosaics.quantizers import EMAVectorQuantizer

# What a step is taken through: features (1, D, N, 1) in, quantized and loss out.
Step = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def mosaics_engine(codes: int, size: int) -> Step:
    quantizer = EMAVectorQuantizer(codes, size, kmeans_iterations=0).train()

    def step(features):
        output = quantizer(features)
        return output.quantized, output.commitment_loss

    return step


def vector_quantize_pytorch_engine(codes: int, size: int) -> Step | None:
    if importlib.util.find_spec("vector_quantize_pytorch") is None:
        return None
    from vector_quantize_pytorch import VectorQuantize

    quantizer = VectorQuantize(dim=size, codebook_size=codes, accept_image_fmap=True).train()

    def step(features):
        quantized, _, loss = quantizer(features)
        return quantized, loss.sum()

    return step


def diffusers_engine(codes: int, size: int) -> Step:
    from diffusers.models.autoencoders.vae import VectorQuantizer

    quantizer = VectorQuantizer(codes, size, beta=0.25, legacy=False).train()

    def step(features):
        quantized, loss, _ = quantizer(features)
        return quantized, loss

    return step


ENGINES = {
    "mosaics": mosaics_engine,
    "vector-quantize-pytorch": vector_quantize_pytorch_engine,
    "diffusers (no EMA)": diffusers_engine,
}


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(name: str, size: tuple[int, int, int], arguments: argparse.Namespace, result: Connection) -> None:
    """Sends (seconds of the best step, bytes of the peak), or None if the engine is not installed."""
    torch.set_num_threads(arguments.threads)
    if arguments.matmul_precision:
        torch.set_float32_matmul_precision(arguments.matmul_precision)
    warnings.simplefilter("ignore")
    count, dim, codes = size
    torch.manual_seed(0)
    step = ENGINES[name](codes, dim)
    if step is None:
        result.send(None)
        return
    time_step(step, torch.randn(2, 1, dim, 64, 1))
    inputs = torch.randn(2, 1, dim, count, 1)
    before = peak_bytes()
    best = min(time_step(step, inputs) for _ in range(arguments.repeats))
    result.send((best, peak_bytes() - before))


def time_step(step: Step, inputs: torch.Tensor) -> float:
    """Seconds of one step on features and on what a decoder sends back."""
    features, upstream = inputs[0].requires_grad_(), inputs[1]
    start = time.process_time()
    quantized, loss = step(features)
    (loss + (quantized * upstream).mean()).backward()
    return time.process_time() - start


def in_new_process(name: str, size: tuple[int, int, int], arguments: argparse.Namespace) -> tuple[float, int] | None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(name, size, arguments, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def sizes(text: str) -> tuple[int, int, int]:
    parts = tuple(int(part) for part in text.split("x"))
    if len(parts) != 3 or min(parts) < 1:
        raise argparse.ArgumentTypeError(f"expected N x D x K such as 65536x64x1024, got {text!r}")
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = [(65536, 64, 1024), (16384, 256, 8192)]
    parser.add_argument("--sizes", type=sizes, nargs="+", default=defaults, help="vectors x size x codes")
    parser.add_argument("--repeats", type=int, default=5, help="steps of each engine; the best counts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--matmul_precision", choices=["highest", "high", "medium"], help="for all engines")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {arguments.threads} thread(s)")
    for size in arguments.sizes:
        results = {name: in_new_process(name, size, arguments) for name in ENGINES}
        print("\nN {}, D {}, K {}             ms a step   mosaics is   peak MiB".format(*size))
        for name, result in results.items():
            if result is None:
                print(f"{name:28} not installed: left out")
                continue
            seconds, peak = result
            ratio = seconds / results["mosaics"][0]
            print(f"{name:28}{1000 * seconds:12.1f}{ratio:11.2f}x{peak / 2**20:12.0f}")


if __name__ == "__main__":
    main()
