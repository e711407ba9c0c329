import random

import numpy as np
import pytest
import torch

from mosaics.training import StepSampler
from mosaics.training.data_order import Position, training_batches
from mosaics.training.randomness import capture_rng
from training_programs import PictureStream, SmallPictures

SHAPES = [(1, 1, 12), (2, 1, 6), (1, 3, 4), (3, 2, 2), (2, 2, 3)]  # processes, accumulation, batch: 12 samples a step


def read_step(step, world_size, accumulation, batch_size, num_samples=100, seed=3):
    samples = set()
    for rank in range(world_size):
        sampler = StepSampler(
            num_samples, batch_size, seed, rank=rank, world_size=world_size, accumulation=accumulation
        )
        for micro_batch in range(accumulation):
            keys = sampler.keys(step, micro_batch)
            assert len(keys) == batch_size
            samples |= set(keys)
    return samples


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_reads_the_same_samples_however_they_are_shared(shape):
    for step in (0, 1, 7, 8, 9, 100):
        samples = read_step(step, *shape)
        assert len(samples) == 12  # no sample twice
        assert samples == read_step(step, 1, 1, 12)


def test_an_epoch_reads_every_sample_once_but_for_a_remainder_smaller_than_a_step():
    sampler = StepSampler(100, 12, seed=0)
    assert sampler.steps_per_epoch == 8
    for epoch in range(3):
        keys = [key for step in range(8 * epoch, 8 * epoch + 8) for key in sampler.keys(step)]
        assert {key[0] for key in keys} == {epoch}
        assert len({key[1] for key in keys}) == 96
    orders = [[index for step in range(8 * e, 8 * e + 8) for _, index in sampler.keys(step)] for e in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_the_order_depends_on_the_seed():
    assert read_step(0, 1, 1, 12, seed=1) != read_step(0, 1, 1, 12, seed=2)


def test_a_sampler_that_starts_late_yields_the_rest_of_one_that_starts_at_the_beginning():
    options = {"rank": 1, "world_size": 2, "accumulation": 3}
    whole = list(StepSampler(50, 2, 5, stop=17, **options))
    for start in (0, 1, 4, 5, 12):  # 4 steps an epoch: within epochs and at their edge
        assert list(StepSampler(50, 2, 5, start=start, stop=17, **options)) == whole[3 * start :]


@pytest.mark.parametrize("size", [0, 7])
def test_a_dataset_smaller_than_a_step_is_an_error_with_both_numbers(size):
    with pytest.raises(ValueError, match=f"holds {size} samples, fewer than the 8 .*train_batch_size 2"):
        StepSampler(size, 2, world_size=2, accumulation=2)


def batches(dataset, start=0, stop=10, **options):
    loader = training_batches(dataset, 4, seed=1, start=start, stop=stop, **options)
    iterator = iter(loader)
    return [next(iterator) for _ in range(stop - start)]


def assert_same_batches(some, others):
    assert len(some) == len(others)
    for (keys, batch), (other_keys, other_batch) in zip(some, others, strict=True):
        assert keys.tolist() == other_keys.tolist()
        torch.testing.assert_close(batch["pixel_values"], other_batch["pixel_values"], rtol=0, atol=0)


def test_random_augmentation_is_the_same_after_a_resume_and_with_worker_processes():
    dataset = SmallPictures(augmented=True)
    whole = batches(dataset)
    first_epoch, second_epoch = whole[0][1]["pixel_values"], whole[5][1]["pixel_values"]
    assert not torch.equal(first_epoch, second_epoch)
    assert_same_batches(batches(dataset, start=7), whole[7:])
    assert_same_batches(batches(dataset, start=3, num_workers=2), whole[3:])
    plain = {sample["index"]: sample["pixel_values"] for sample in (SmallPictures()[i] for i in range(20))}
    assert not torch.equal(first_epoch[0], plain[whole[0][1]["index"][0].item()])  # it was augmented


def test_augmentation_differs_between_epochs_and_samples():
    class Noise:
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return {"noise": torch.tensor([torch.rand(()).item(), np.random.rand(), random.random()])}

    draws = torch.cat([batch["noise"] for _, batch in batches(Noise(), stop=6)])  # three epochs
    for generator in range(3):
        assert len(draws[:, generator].unique()) == len(draws)


def test_reading_data_leaves_the_global_generators_alone():
    before = capture_rng()
    batches(SmallPictures(augmented=True))
    batches(PictureStream())
    after = capture_rng()
    for name, state in before.items():
        assert torch.equal(state, after[name]), name


def test_a_stream_is_shared_and_resumed_like_a_dataset():
    whole = batches(PictureStream(length=18))  # 4 steps an epoch, 2 samples left over
    epochs = [keys[0, 0].item() for keys, _ in whole]
    assert epochs == [0] * 4 + [1] * 4 + [2] * 2
    assert whole[4][1]["index"].tolist() == [1, 2, 3, 4]  # set_epoch was called
    resumed = batches(PictureStream(length=18), start=6, position=Position(1, 2))
    assert_same_batches(resumed, whole[6:])
    at_the_edge = batches(PictureStream(length=18), start=4, position=Position(0, 4), num_workers=1)
    assert_same_batches(at_the_edge, whole[4:])


def test_processes_read_disjoint_parts_of_a_stream_and_the_same_as_one_process():
    options = {"seed": 1, "world_size": 2, "accumulation": 2}
    parts = [iter(training_batches(PictureStream(), 2, rank=rank, **options)) for rank in range(2)]
    one = iter(training_batches(PictureStream(), 8, seed=1))
    for _ in range(5):
        shared = [next(part) for _ in range(2) for part in parts]
        keys, batch = next(one)
        assert torch.cat([part_keys for part_keys, _ in shared]).tolist() == keys.tolist()
        assert torch.equal(torch.cat([part["pixel_values"] for _, part in shared]), batch["pixel_values"])


def test_a_stream_shorter_than_a_step_is_an_error_and_not_an_endless_loop():
    with pytest.raises(ValueError, match="ended before the 4 samples"):
        batches(PictureStream(length=3), stop=1)


def test_the_number_of_a_sample_that_cannot_be_read_is_in_the_error():
    class Broken(SmallPictures):
        def __getitem__(self, index):
            if index == 13:
                raise OSError("broken picture")
            return super().__getitem__(index)

    with pytest.raises(OSError, match="broken picture") as caught:
        batches(Broken())
    assert "sample 13" in "".join(caught.value.__notes__)


def test_something_that_is_no_dataset_is_refused():
    with pytest.raises(TypeError, match="int has neither"):
        batches(3)
