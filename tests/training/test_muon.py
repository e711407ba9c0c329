"""Muon beside AdamW: who takes which parameter, the very steps of both, and state that comes back."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from mosaics.training import TrainingConfig
from mosaics.training.muon import MuonWithAdamW
from mosaics.training.optimizer import build_optimizer, hidden_matrices
from testing_utils import tiny_dalle, tiny_dvae
from training_programs import small_run

CPU = torch.device("cpu")


def test_muon_takes_the_matrices_of_the_layers_and_neither_heads_nor_embeddings():
    names = hidden_matrices(tiny_dalle())
    parts = ("attention.qkv", "attention.output", "feed_forward.up", "feed_forward.down")
    assert names == {f"layers.{layer}.{part}.weight" for layer in (0, 1) for part in parts}


def test_every_parameter_is_in_one_group_and_decays_as_with_adamw():
    model = tiny_dalle()
    config = {"weight_decay": 0.25, "learning_rate": 0.5}
    plain = build_optimizer(model, TrainingConfig(**config), CPU)
    muon = build_optimizer(model, TrainingConfig(optimizer="muon", **config), CPU)

    def decay_of(optimizer):
        return {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}

    assert decay_of(muon) == decay_of(plain)
    assert sum(len(group["params"]) for group in muon.param_groups) == len(list(model.parameters()))


def matrix_and_vector():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((6, 4), (5,))]


def take_steps(optimizer, parameters, steps, first=0):
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def both(parameters, lr=0.1):
    return MuonWithAdamW(
        [{"params": parameters[:1], "weight_decay": 0.1}], [{"params": parameters[1:], "weight_decay": 0.0}], lr=lr
    )


def test_the_steps_are_those_of_the_two_optimizers_also_after_the_learning_rate_changed():
    joined, apart = matrix_and_vector(), matrix_and_vector()
    optimizer = both(joined, lr=0.1)
    for group in optimizer.param_groups:
        group["lr"] = 0.02
    take_steps(optimizer, joined, 3)
    muon = torch.optim.Muon(apart[:1], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(apart[1:], lr=0.02, betas=(0.9, 0.99), weight_decay=0.0)
    take_steps(muon, apart[:1], 3)
    for step in range(3):  # the vector's gradients are the second of each step's draws
        generator = torch.Generator().manual_seed(step)
        torch.randn(6, 4, generator=generator)
        apart[1].grad = torch.randn(5, generator=generator)
        adamw.step()
    for some, other in zip(joined, apart, strict=True):
        torch.testing.assert_close(some, other)


def test_loaded_state_continues_bit_for_bit():
    straight, resumed = matrix_and_vector(), matrix_and_vector()
    take_steps(both(straight), straight, 5)
    before = both(resumed)
    take_steps(before, resumed, 3)
    after = both(resumed)
    after.load_state_dict(before.state_dict())
    take_steps(after, resumed, 2, first=3)
    for some, other in zip(straight, resumed, strict=True):
        assert torch.equal(some, other)


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(ValueError, match="linear layers, DiscreteVAE has none"):
        build_optimizer(tiny_dvae(), TrainingConfig(optimizer="muon"), CPU)


class LinearAutoencoder(PreTrainedModel):
    config_class = PreTrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.down, self.up = nn.Linear(3 * 8 * 8, 4), nn.Linear(4, 3 * 8 * 8)
        self.post_init()

    def forward(self, pixel_values):
        pixels = pixel_values.flatten(1)
        return F.mse_loss(self.up(self.down(pixels)), pixels)


def trained(output_dir, *stops):
    for stop in stops:
        torch.manual_seed(0)
        settings = {"optimizer": "muon", "lr_schedule": "constant", "warmup_steps": 0, "max_steps": stop}
        run = small_run(output_dir, model=LinearAutoencoder(PreTrainedConfig()), **settings)
        for batch in run:
            run.optimize(run.model(batch["pixel_values"]))
    return run.unwrapped_model.state_dict()


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    straight, resumed = trained(tmp_path / "straight", 6), trained(tmp_path / "resumed", 3, 6)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
