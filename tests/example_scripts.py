"""Running the scripts of the examples as a user does, but in this process."""

import runpy
import sys
from pathlib import Path

from accelerate.state import AcceleratorState, GradientState, PartialState

EXAMPLES = Path(__file__).parents[1] / "examples"
SCENES = '{"length": 64, "styles": ["noto"], "groups": ["animals & nature"]}'


def run_script(name: str, *arguments: str) -> None:
    """Runs a script of the examples as its own main program, in this process."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    before = sys.argv, sys.path[:]
    sys.argv = [str(EXAMPLES / name), *arguments]
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        sys.argv, sys.path[:] = before


def training(folder: Path, steps: int = 2) -> list[str]:
    """Arguments of a few quick steps on emoji scenes."""
    return [
        *("--recipe", "none", "--output_dir", str(folder), "--max_steps", str(steps), "--train_batch_size", "4"),
        *("--dataset_options", SCENES, "--num_eval_samples", "4", "--eval_steps", "2", "--progress_bar", "false"),
        *("--learning_rate", "1e-3", "--logging_steps", "1", "--cpu", "true"),
    ]
