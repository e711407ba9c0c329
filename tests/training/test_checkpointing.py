import json
import shutil
import signal

import pytest
import torch

from mosaics.training import CheckpointError, find_checkpoint, save_checkpoint, verify_checkpoint
from mosaics.training.checkpointing import list_checkpoints, prune_checkpoints
from mosaics.training.run_state import read_tensors, write_tensors
from training_programs import in_processes, save_twice

FILES = ("model.safetensors", "optimizer.safetensors", "averaged/model.safetensors", "state.json")


def save(root, step):
    def write(folder):
        (folder / "averaged").mkdir()
        for name in FILES:
            (folder / name).write_bytes(f"{name} of step {step}".encode() * 10)

    return save_checkpoint(root, step, write, description={"settings_hash": "abc"})


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "bit flipped": flip_a_bit,
    "removed": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_found(tmp_path, name, damage):
    save(tmp_path, 5)
    DAMAGE[damage](save(tmp_path, 10) / name)
    reasons = []
    path, manifest = find_checkpoint(tmp_path, reasons.append)
    assert path.name == "checkpoint-00000005" and manifest["step"] == 5 and manifest["settings_hash"] == "abc"
    (reason,) = reasons
    assert reason.startswith("checkpoint-00000010: ")
    assert name in reason or (name == "manifest.json" and damage == "bit flipped")  # then another file seems wrong
    assert (tmp_path / "checkpoint-00000010").is_dir()  # reported, not deleted


def test_a_checkpoint_mixed_from_two_steps_is_refused(tmp_path):
    old, new = save(tmp_path, 5), save(tmp_path, 10)
    shutil.copy(old / "optimizer.safetensors", new / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match=r"checkpoint-00000010: optimizer\.safetensors"):
        verify_checkpoint(new)
    new.rename(tmp_path / "elsewhere")
    shutil.copytree(old, new)
    with pytest.raises(CheckpointError, match="checkpoint-00000010: the manifest is that of step 5"):
        verify_checkpoint(new)


def test_no_checkpoint_is_none_but_only_bad_ones_is_an_error_that_lists_them(tmp_path):
    assert find_checkpoint(tmp_path / "nothing", print) is None
    for step in (1, 2):
        flip_a_bit(save(tmp_path, step) / "state.json")
    with pytest.raises(CheckpointError, match=r"None of the 2 .*00000002: state.json.*00000001: state.json"):
        find_checkpoint(tmp_path, lambda reason: None)


def test_pruning_keeps_the_newest_and_the_one_that_was_just_verified(tmp_path):
    paths = [save(tmp_path, step) for step in (1, 2, 3, 4)]
    prune_checkpoints(tmp_path, 2, paths[0])
    assert [step for step, _ in list_checkpoints(tmp_path)] == [4, 3, 1]
    prune_checkpoints(tmp_path, None, paths[3])
    assert len(list_checkpoints(tmp_path)) == 3


def test_saving_over_an_unusable_checkpoint_keeps_it_under_another_name(tmp_path):
    DAMAGE["truncated"](save(tmp_path, 1) / "state.json")
    verify_checkpoint(save(tmp_path, 1))
    assert (tmp_path / "damaged-checkpoint-00000001-1").is_dir()


def test_a_checkpoint_is_not_begun_without_room_for_it(tmp_path):
    old = save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"step 2.*1,000,000,000,000.0 MB.*intact"):
        save_checkpoint(tmp_path, 2, lambda folder: pytest.fail("written"), needed_bytes=10**18)
    verify_checkpoint(old)


def test_killed_before_any_file_operation_of_a_save_one_whole_checkpoint_is_left(tmp_path):
    outcomes, operation = [], 1
    while True:
        root = tmp_path / str(operation)
        code = in_processes(save_twice, str(root), operation)
        path, manifest = find_checkpoint(root, lambda reason: None)
        contents = {read_tensors(path / name)["weight"].unique().item() for name in FILES[:3]}
        contents.add(json.loads((path / "state.json").read_text())["step"])
        assert contents == {manifest["step"]}, "a checkpoint mixed from two steps"
        outcomes.append(manifest["step"])
        if code == 0:
            break
        assert code == -signal.SIGKILL
        operation += 1
    # Old until the rename, new after it; the last round was not killed.
    assert outcomes == sorted(outcomes) and set(outcomes) == {1, 2}
    assert operation > 12


def test_tensors_come_back_as_they_were_and_unreadable_ones_name_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {"a": torch.randn(3, 4).T, "b": torch.tensor(7), "c": torch.randn(2).bfloat16()}
    write_tensors(path, tensors)
    for name, tensor in read_tensors(path).items():
        assert torch.equal(tensor, tensors[name]) and tensor.dtype == tensors[name].dtype
    DAMAGE["truncated"](path)
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_tensors(path)
