#!/usr/bin/env python
"""Draws pictures of sentences: `mosaics generate`, from a clone of the repository.

python examples/generate.py "a lion on a blue background"
python examples/generate.py "two copies of cat on green" "a beetle above a balloon" --num_candidates 64
python examples/generate.py "a lion" --model user/name --num_images_per_prompt 4 --seed 7 --output lions.png
"""

import sys

from mosaics.cli import main

if __name__ == "__main__":
    if code := main(["generate", *sys.argv[1:]]):
        sys.exit(code)
