"""What importing costs: `python tests/benchmarks/bench_import.py`. The least of `--repeats` runs, interleaved."""

import argparse
import re
import subprocess
import sys

STATEMENTS = {
    "mosaics": "import mosaics",
    "the libraries": "import transformers, diffusers",
    "a pipeline of mosaics": "from mosaics import DallePipeline",
    "classes of the libraries": "from transformers import CLIPModel; from diffusers import DiffusionPipeline",
}


def milliseconds(statement: str) -> float:
    """The sum over all modules of the time of their own code, as `-X importtime` gives it."""
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", statement], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return sum(int(time) for time in re.findall(r"^import time:\s+(\d+) \|", done.stderr, re.MULTILINE)) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    times = [{name: milliseconds(statement) for name, statement in STATEMENTS.items()} for _ in range(repeats)]
    least = {name: min(run[name] for run in times) for name in STATEMENTS}
    for name, time in least.items():
        print(f"{time:8.1f} ms  {name}: {STATEMENTS[name]}")
    print(f"mosaics / the libraries: {least['mosaics'] / least['the libraries']:.2f}")
    ratio = least["a pipeline of mosaics"] / least["classes of the libraries"]
    print(f"a pipeline of mosaics / classes of the libraries: {ratio:.2f}")


if __name__ == "__main__":
    main()
