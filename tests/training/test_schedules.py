import math
from itertools import pairwise

import pytest

from mosaics.training import cosine_anneal, exponential_anneal, learning_rate_at, linear_anneal, linear_warmup


@pytest.mark.parametrize("anneal", [cosine_anneal, linear_anneal, exponential_anneal])
def test_an_anneal_starts_at_start_ends_at_end_stays_there_and_never_turns_back(anneal):
    values = [anneal(step, start=1.0, end=1 / 16, num_steps=150) for step in range(200)]
    assert values[0] == 1.0
    assert values[150:] == [1 / 16] * 50
    assert all(later <= earlier for earlier, later in pairwise(values))


def test_the_cosine_anneal_is_half_a_cosine():
    for step in (1, 37, 75, 149):
        expected = 1 / 16 + (1 - 1 / 16) * (1 + math.cos(math.pi * step / 150)) / 2
        assert cosine_anneal(step, start=1.0, end=1 / 16, num_steps=150) == pytest.approx(expected, rel=1e-12)


def test_an_anneal_of_no_steps_is_over_at_once():
    assert cosine_anneal(0, start=1.0, end=0.5, num_steps=0) == 0.5


def test_the_warm_up_moves_at_the_first_step_and_is_full_at_its_last():
    assert [linear_warmup(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert linear_warmup(0, 0) == 1.0


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_learning_rate_rises_to_its_peak_and_decays_to_its_end(schedule):
    rates = [
        learning_rate_at(step, peak=2.0, end=0.5, warmup_steps=5, decay_steps=50, schedule=schedule)
        for step in range(60)
    ]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rates[5] == 2.0
    assert rates[50:] == [2.0 if schedule == "constant" else 0.5] * 10
    if schedule != "constant":
        assert rates[27] > 1.25 > rates[28]  # halfway between steps 5 and 50, both shapes are in the middle


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_late_decay_stays_at_the_peak_until_it_begins(schedule):
    rates = [
        learning_rate_at(step, peak=2.0, end=0.0, warmup_steps=5, decay_steps=50, schedule=schedule, decay_start=40)
        for step in range(60)
    ]
    assert rates[4:41] == [2.0] * 37
    assert rates[45] == pytest.approx(1.0) and rates[50:] == [0.0] * 10
    assert all(later < earlier for earlier, later in pairwise(rates[40:51]))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: cosine_anneal(-1, 1.0, 0.0, 10), "step"),
        (lambda: linear_anneal(0, 1.0, 0.0, -1), "num_steps"),
        (lambda: exponential_anneal(0, 1.0, 0.0, 10), "end=0.0"),
        (lambda: learning_rate_at(9, peak=1, end=0, warmup_steps=0, decay_steps=9, schedule="step"), "'step'"),
    ],
)
def test_a_wrong_argument_of_a_schedule_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
