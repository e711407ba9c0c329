#!/usr/bin/env python
"""Writes a trained pipeline in half precision, half the size on disk; it loads in float32.

python examples/export_half.py outputs/emoji/dalle/pipeline src/mosaics/checkpoints/emoji-64
"""

import argparse
from pathlib import Path

import torch

from mosaics import DallePipeline


def halve(model: torch.nn.Module) -> None:
    """Half precision for all but what the model's class keeps in float32."""
    kept = tuple(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and not name.startswith(kept):
                tensor.data = tensor.data.to(torch.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", help="Folder or Hub repository of a DallePipeline.")
    parser.add_argument("output_dir", type=Path, help="Folder to write.")
    parser.add_argument("--temperature", type=float, help="What calls that name none take from then on.")
    parser.add_argument("--guidance_scale", type=float, help="The same.")
    arguments = parser.parse_args()
    given = {"temperature": arguments.temperature, "guidance_scale": arguments.guidance_scale}
    settings = {name: value for name, value in given.items() if value is not None}
    pipeline = DallePipeline.from_pretrained(arguments.pipeline, **settings)
    parts = {name: part for name in ("transformer", "dvae", "clip") if (part := getattr(pipeline, name)) is not None}
    for part in parts.values():
        halve(part)
    pipeline.save_pretrained(arguments.output_dir)
    for name, part in parts.items():  # the precision a user loads, by name or through the pipeline
        part.config.dtype = torch.float32
        part.config.save_pretrained(arguments.output_dir / name)
    size = sum(path.stat().st_size for path in arguments.output_dir.rglob("*") if path.is_file())
    print(f"{arguments.output_dir}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
