"""Two processes that talk over gloo, against one."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mosaics.training.checkpointing import list_checkpoints
from mosaics.training.run_state import read_tensors
from mosaics.training.signals import EXIT_CODE_STOPPED
from training_programs import SmallPictures, in_processes, small_model, train, train_and_kill

PLAIN = {"dropout": 0.0, "normalize": False}


def train_plain(output_dir, **options):
    train_and_kill(output_dir, model=small_model(**PLAIN), max_grad_norm=0.05, **options)


def trace(output_dir, rank=0):
    lines = (Path(output_dir) / f"trace-{rank}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_close_checkpoints(some, others):
    for name in ("model.safetensors", "optimizer.safetensors", "averaged/model.safetensors"):
        ours, theirs = (read_tensors(folder / "checkpoint-00000008" / name) for folder in (some, others))
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[key], rtol=1e-4, atol=1e-6, msg=f"{name}: {key}")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """8 steps of 2 x 4 samples."""
    output_dir = tmp_path_factory.mktemp("two")
    assert in_processes(train_plain, str(output_dir), world_size=2, max_steps=8) == [0, 0]
    return output_dir


def test_two_processes_equal_one_with_the_whole_batch(tmp_path, two_processes):
    train_plain(str(tmp_path), max_steps=8, train_batch_size=8)
    for one, left, right in zip(trace(tmp_path), trace(two_processes), trace(two_processes, 1), strict=True):
        assert left["samples"] + right["samples"] == one["samples"]
        assert (left["loss"] + right["loss"]) / 2 == pytest.approx(one["loss"], rel=1e-5)
    assert_close_checkpoints(tmp_path, two_processes)
    ours, theirs = (
        json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1]) for folder in (tmp_path, two_processes)
    )
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_two_processes_resume_bit_for_bit_and_one_process_can_go_on_from_them(tmp_path, two_processes):
    cut = tmp_path / "cut"
    options = {"world_size": 2, "max_steps": 8}
    # One process gets SIGTERM: both stop at the same step, saved.
    codes = in_processes(terminate_one, str(cut), world_size=2)
    assert codes == [EXIT_CODE_STOPPED] * 2
    assert [step for step, _ in list_checkpoints(cut)] == [5, 3]
    one = tmp_path / "one"
    train_plain(str(one), max_steps=8, train_batch_size=8, resume_from_checkpoint=str(cut / "checkpoint-00000005"))
    assert_close_checkpoints(one, two_processes)
    assert in_processes(train_plain, str(cut), **options) == [0, 0]
    manifests = [json.loads((f / "checkpoint-00000008/manifest.json").read_text()) for f in (cut, two_processes)]
    assert manifests[0]["files"] == manifests[1]["files"]
    assert {"rng-00000.safetensors", "rng-00001.safetensors"} < set(manifests[0]["files"])


def terminate_one(output_dir):
    import os

    only_rank_one = 4 if os.environ["RANK"] == "1" else None
    train_plain(output_dir, at_step=only_rank_one, number=signal.SIGTERM, max_steps=8)


def test_nan_on_one_process_is_refused_on_both(tmp_path):
    assert in_processes(meet_nan, str(tmp_path), world_size=2) == [0, 0]


def meet_nan(output_dir):
    """One sample is NaN: one process reads it, both skip that step and stay equal and finite."""
    run = train(output_dir, dataset=SmallPictures(poison=[11]), model=small_model(), nonfinite="skip", max_steps=2)
    read_here = [line for line in trace(output_dir, run.accelerator.process_index) if 11 in line["samples"]]
    everyone = run.accelerator.gather(torch.tensor([len(read_here), run._guard.refused])).view(-1, 2)
    assert everyone[:, 0].sum() == 1, everyone
    assert everyone[:, 1].tolist() == [1, 1], everyone
    mine = torch.cat([parameter.detach().flatten() for parameter in run.unwrapped_model.parameters()])
    both = run.accelerator.gather(mine).view(2, -1)
    assert both.isfinite().all() and torch.equal(both[0], both[1])


def test_a_killed_process_ends_the_whole_job_and_the_checkpoint_is_good(tmp_path):
    program = Path(__file__).parents[1] / "training_programs.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    result = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert result.returncode != 0
    assert "Signal 9" in result.stderr and "rank      : 1" in result.stderr
    assert [step for step, _ in list_checkpoints(tmp_path)] == [3]
    train(tmp_path, train_batch_size=8, max_steps=5, lr_decay_steps=14)
