"""Sampling of a grid of codes with caches and without: process time, float32, one thread.

    python tests/benchmarks/bench_pixelcnn.py                       # 32 x 32 codes, convolutions only, then attention
    python tests/benchmarks/bench_pixelcnn.py --grid 8 --layers 4   # seconds

Without caches every code costs a forward pass of the whole grid, which takes the same time whatever its position:
`--uncached_steps` of them are timed, spread over the grid, and multiplied. Each draws its code again from the codes
before it and from its uniform, and must find the one that the cached run drew. They take turns, the best of
`--repeats` counts, and preparation is included. Speeds depend on the machine and on what else it does; the ratios of
one run are what to compare.
"""

import argparse
import time
from collections.abc import Callable

import torch

from mosaics.models.pixelcnn import PixelCNN, PixelCNNConfig
from mosaics.sampling import candidate_uniforms, draw


def seconds(action: Callable[[], None]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def measure(model: PixelCNN, samples: int, steps: int, repeats: int) -> tuple[float, float]:
    """Best process time of a whole cached run and of `steps` uncached steps, which must draw the same codes."""
    height, width = model.config.grid_size
    uniforms = candidate_uniforms(0, [0] * samples, range(samples), height * width)
    positions = torch.linspace(0, height * width - 1, steps).long().tolist()
    drawn = model.generate(samples, uniforms=uniforms, batch_size=samples)

    def cached() -> None:
        model.generate(samples, uniforms=uniforms, batch_size=samples)

    @torch.no_grad()
    def uncached() -> None:
        for position in positions:
            indices = drawn.flatten(1).clone()
            indices[:, position:] = 0
            logits = model(indices.view(-1, height, width)).logits.flatten(2)[:, :, position]
            assert torch.equal(draw(logits, uniforms[:, position]), drawn.flatten(1)[:, position])

    times = [(seconds(cached), seconds(uncached)) for _ in range(repeats)]
    return tuple(min(column) for column in zip(*times, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, default=32, help="rows and columns")
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 16], help="grids drawn together")
    parser.add_argument("--uncached_steps", type=int, default=4, help="codes that are timed without caches")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each; the best counts")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    count = arguments.grid**2
    print(
        f"torch {torch.__version__}, {arguments.threads} thread(s), process time; {arguments.grid} x {arguments.grid}"
    )
    print(
        f"codes, {arguments.layers} layers of {arguments.hidden_size}; uncached: {arguments.uncached_steps} of {count}"
    )
    print("steps were timed and multiplied; both drew the same codes")
    print(f"\n{'':24}samples   cached s   uncached s    codes/s    ratio")
    for name, attention_layers in (("convolutions only", 0), ("with attention", max(1, arguments.layers // 5))):
        config = PixelCNNConfig(
            grid_height=arguments.grid,
            grid_width=arguments.grid,
            hidden_size=arguments.hidden_size,
            num_layers=arguments.layers,
            num_attention_layers=attention_layers,
        )
        model = PixelCNN(config).eval()
        for samples in arguments.samples:
            cached, uncached = measure(model, samples, arguments.uncached_steps, arguments.repeats)
            uncached *= count / arguments.uncached_steps
            rate, ratio = samples * count / cached, uncached / cached
            print(f"{name:24}{samples:7}{cached:11.2f}{uncached:13.1f}{rate:11.0f}{ratio:8.0f}x")


if __name__ == "__main__":
    main()
