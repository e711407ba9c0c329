"""Two processes that talk over gloo, against one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mosaics.training.checkpointing import list_checkpoints
from mosaics.training.run_state import read_tensors
from mosaics.training.signals import EXIT_CODE_STOPPED
from training_programs import in_processes, meet_nan, shard_and_resume, terminate_one, trace, train, train_plain


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


def test_nan_on_one_process_is_refused_on_both(tmp_path):
    assert in_processes(meet_nan, str(tmp_path), world_size=2) == [0, 0]


def test_the_state_of_a_sharded_model_is_that_of_a_whole_one(tmp_path):
    assert in_processes(shard_and_resume, str(tmp_path), world_size=2) == [0, 0]


def test_a_killed_process_ends_the_whole_job_and_the_checkpoint_is_good(tmp_path):
    program = Path(__file__).parents[1] / "training_programs.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    result = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert result.returncode != 0
    assert "Signal 9" in result.stderr and "rank      : 1" in result.stderr
    assert [step for step, _ in list_checkpoints(tmp_path)] == [3]
    train(tmp_path, train_batch_size=8, max_steps=5, lr_decay_steps=14)
