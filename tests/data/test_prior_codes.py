"""What priors are trained on: one level of a folder of codes, the levels above it, and classes."""

import pytest
import torch
from torch.utils.data import default_collate

from mosaics.data import (
    CodeGrid,
    CodesDataset,
    CodesDescription,
    CodesError,
    CodesWriter,
    PriorCodes,
    load_prior_codes,
)

SIZES = ((2, 2), (4, 4), (8, 8))


def write(folder, num_levels=3, names=("lion", "fish"), captions=False, count=10):
    grids = tuple(CodeGrid(f"level-{n}", 16 + n, SIZES[n]) for n in range(num_levels))
    writer = CodesWriter(folder, CodesDescription(grids, num_samples=count, shard_size=4, class_names=names))
    for shard in writer:
        numbers = range(shard.start, shard.stop)
        codes = tuple(torch.stack([torch.full(grid.size, number + 1) for number in numbers]) for grid in grids)
        labels = None if names is None else torch.tensor([number % len(names) for number in numbers])
        words = [("boat", "fish", "lion")[number % 3] for number in numbers] if captions else None
        shard.append(codes, words, class_labels=labels)
    writer.finish()
    return folder


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_level_comes_with_all_levels_above_it_top_first(tmp_path, level):
    train, held_out = load_prior_codes(write(tmp_path), num_eval_samples=3, level=level)
    assert len(train) == 7 and len(held_out) == 3
    assert train.grid.size == SIZES[level - 1] and train.grid.codebook_id == f"level-{level - 1}"
    assert [grid.num_embeddings for grid in train.upper_grids] == [16, 17][: level - 1]
    sample = held_out[1]
    assert torch.equal(sample["indices"], torch.full(SIZES[level - 1], 9)) and sample["class_labels"] == 0
    assert [tuple(grid.shape) for grid in sample.get("conditions", ())] == list(SIZES[: level - 1])
    assert all((grid == 9).all() for grid in sample.get("conditions", ()))
    batch = default_collate([train[0], train[1]])
    assert batch["class_labels"].tolist() == [0, 1] and batch["indices"].shape == (2, *SIZES[level - 1])


def test_classes_are_the_labels_the_captions_or_none(tmp_path):
    folder = write(tmp_path / "a", 1, captions=True)
    train, _ = load_prior_codes(folder, num_eval_samples=2)
    assert train.class_names == ("lion", "fish") and train.num_classes == 2
    train, held_out = load_prior_codes(folder, num_eval_samples=2, classes="captions")
    assert train.class_names == held_out.class_names == ("boat", "fish", "lion")
    assert [train[number]["class_labels"] for number in range(4)] == [0, 1, 2, 0]
    assert held_out[0]["class_labels"] == 8 % 3
    train, _ = load_prior_codes(folder, num_eval_samples=2, classes="none")
    assert train.num_classes is None and set(train[0]) == {"indices"}
    train, _ = load_prior_codes(write(tmp_path / "b", 1, names=None), num_eval_samples=2)
    assert train.num_classes is None


def test_codes_to_evaluate_on_have_the_numbers_of_the_training_classes(tmp_path):
    folder = write(tmp_path / "a", 1, names=("boat", "fish", "lion"))
    other = write(tmp_path / "b", 1, names=("lion", "boat"), count=5)
    train, held_out = load_prior_codes(folder, other, num_eval_samples=100)
    assert len(train) == 10 and len(held_out) == 5
    assert [held_out[number]["class_labels"] for number in range(3)] == [2, 0, 2]
    stranger = write(tmp_path / "c", 1, names=("lion", "crane"))
    with pytest.raises(CodesError, match="training codes lack: 'crane'"):
        load_prior_codes(folder, stranger, num_eval_samples=2)
    unlabelled = write(tmp_path / "d", 1, names=None)
    with pytest.raises(CodesError, match="has no class labels"):
        load_prior_codes(folder, unlabelled, num_eval_samples=2)
    with pytest.raises(CodesError, match="codebook level-0, level-1, not to level-0"):
        load_prior_codes(folder, write(tmp_path / "e", 2), num_eval_samples=2)


def test_what_the_folder_has_not_is_refused(tmp_path):
    folder = write(tmp_path / "codes", 2)
    for level in (0, 3):
        with pytest.raises(CodesError, match=f"2 level.*got level={level}"):
            load_prior_codes(folder, num_eval_samples=2, level=level)
    with pytest.raises(CodesError, match="no captions, which are needed to make classes of them"):
        load_prior_codes(folder, num_eval_samples=2, classes="captions")
    captioned = write(tmp_path / "captioned", 2, captions=True)
    with pytest.raises(CodesError, match="no captions"):
        load_prior_codes(captioned, write(tmp_path / "silent", 2), num_eval_samples=2, classes="captions")
    with pytest.raises(ValueError, match="labels, captions, none"):
        load_prior_codes(folder, num_eval_samples=2, classes="words")
    with pytest.raises(ValueError, match="num_eval_samples"):
        load_prior_codes(folder, num_eval_samples=0)
    with pytest.raises(CodesError, match="belong to codebook"):
        load_prior_codes(folder, num_eval_samples=2, codebook_id=("level-1", "level-0"))


def test_other_samples_levels_and_classes_have_another_fingerprint(tmp_path):
    codes = CodesDataset(write(tmp_path, 2))
    every = [PriorCodes(codes, range(5)), PriorCodes(codes, range(6)), PriorCodes(codes, range(5), level=2)]
    every.append(PriorCodes(codes, range(5), class_names=("lion", "fish")))
    assert len({data.fingerprint for data in every}) == 4
