"""The EMA codebook: the published averages, restarts, and the same codebook on any number of processes."""

import pytest
import torch
from safetensors.torch import load_file

from mosaics.quantizers import EMAVectorQuantizer, nearest_codes
from mosaics.quantizers.collectives import spread_choice
from quantizer_programs import train_codebook, train_codebook_on_each
from training_programs import in_processes

PLAIN = {"revival_threshold": 0.0, "kmeans_iterations": 0, "decay_warmup": 1}


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantizer(num_embeddings=6, embedding_dim=3, **options):
    module = EMAVectorQuantizer(num_embeddings, embedding_dim, **(PLAIN | options)).train()
    module.codebook.copy_(features(num_embeddings, embedding_dim, seed=3))
    return module


def rows(z):
    return z.movedim(1, -1).reshape(-1, z.shape[1])


def test_decay_zero_is_one_step_of_kmeans():
    module, z = quantizer(num_embeddings=40, decay=0.0, epsilon=0.0), features(2, 3, 5, 5)
    before = module.codebook.clone()
    output = module(z)
    nearest = nearest_codes(rows(z), before)
    assert torch.equal(output.indices.flatten(), nearest) and nearest.unique().numel() < 40
    for code in range(40):
        cell = rows(z)[nearest == code]
        expected = cell.mean(0) if len(cell) else before[code]
        torch.testing.assert_close(module.codebook[code], expected)
    assert torch.equal(output.quantized, before[output.indices].movedim(-1, 1)), "the step is taken after the lookup"


def test_three_steps_are_the_published_averages_with_the_smoothing_on_a_copy():
    decay, epsilon = 0.9, 0.1
    module = quantizer(decay=decay, epsilon=epsilon)
    codebook = module.codebook.double()
    cluster_size, sums = torch.zeros(6).double(), torch.zeros(6, 3).double()
    for step in range(3):
        z = features(4, 3, 5, seed=step)
        module(z)
        one_hot = torch.eye(6)[nearest_codes(rows(z), codebook.float())].double()
        cluster_size = decay * cluster_size + (1 - decay) * one_hot.sum(0)
        sums = decay * sums + (1 - decay) * one_hot.T @ rows(z).double()
        total = cluster_size.sum()
        codebook = sums / ((cluster_size + epsilon) / (total + 6 * epsilon) * total)[:, None]
        torch.testing.assert_close(module.cluster_size.double(), cluster_size, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(module.sums.double(), sums, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(module.codebook.double(), codebook, atol=1e-5, rtol=1e-5)


def test_young_averages_forget_faster():
    module = quantizer(decay=0.5, decay_warmup=4)
    cluster_size = torch.zeros(6)
    for step, decay in enumerate((1 / 4, 2 / 5, 3 / 6, 0.5, 0.5)):  # from the third step on the decay itself
        z = features(4, 3, 5, seed=step)
        counts = torch.bincount(module(z).indices.flatten(), minlength=6)
        cluster_size = decay * cluster_size + (1 - decay) * counts
        torch.testing.assert_close(module.cluster_size, cluster_size)


def test_codes_keep_up_with_features_that_move_fast_at_first():
    usage = {}
    for warmup in (1, 10):
        module = EMAVectorQuantizer(32, 3, decay_warmup=warmup).train()
        for step in range(20):
            output = module(features(4, 3, 20, 20, seed=step) + 0.5 * min(step, 10))
        usage[warmup] = output.codebook_usage.item()
    assert usage[1] < 0.2 and usage[10] > 0.8


def test_only_the_commitment_has_a_gradient():
    module, z = quantizer(), features(2, 3, 4, 4).requires_grad_()
    before = module.codebook.clone()
    output = module(z)
    assert output.codebook_loss == 0 and not output.codebook_loss.requires_grad
    torch.testing.assert_close(output.commitment_loss, (z - before[output.indices].movedim(-1, 1)).square().mean())
    (output.quantized.sum() + output.commitment_loss).backward()
    expected = 1 + 2 * (z.detach() - output.quantized) / z.numel()
    torch.testing.assert_close(z.grad, expected.detach())
    assert not list(module.parameters())


def test_nothing_changes_outside_training():
    module = quantizer().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module(features(2, 3, 4, 4))
    module.train().encode(features(2, 3, 4, 4))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_batch_that_is_not_finite_changes_nothing_and_shows_in_the_loss(value):
    module = EMAVectorQuantizer(6, 3).train()
    module(features(2, 3, 4, 4))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    z = features(2, 3, 4, 4)
    z[0, 0, 0, 0] = value
    assert not module(z).commitment_loss.isfinite()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    with pytest.raises(ValueError, match="NaN or infinite"):
        module.eval()(z)


def test_dead_codes_restart_at_vectors_of_the_batch_with_the_weight_of_an_average_code():
    module, z = quantizer(num_embeddings=8, revival_threshold=0.1, decay=0.5), features(2, 3, 6, 6)
    module.codebook[4:] = 1000.0
    module(z)
    restarted = module.codebook[4:]
    distances = (restarted[:, None] - rows(z)).norm(dim=2)
    assert distances.min(dim=1).values.max() < 1e-5
    assert distances.argmin(dim=1).unique().numel() == 4, "each at another vector"
    assert torch.allclose(module.cluster_size[4:], torch.tensor(0.5 * 72 / 8))
    assert module(z).codebook_usage == 1


def test_without_a_threshold_dead_codes_stay_where_they_are():
    module = quantizer()
    module.codebook[5] = 1000.0
    module(features(2, 3, 4, 4))
    assert (module.codebook[5] == 1000).all()


def test_the_first_batch_starts_the_codes_where_the_data_is():
    centres = 20 * features(6, 3, seed=4)
    z = centres.repeat_interleave(60, dim=0) + 0.01 * features(360, 3)
    module = EMAVectorQuantizer(30, 3).train()
    output = module(z)
    assert output.codebook_usage == 1
    assert torch.cdist(centres, module.codebook).min(dim=1).values.max() < 0.1
    started = module.codebook.clone()
    module(z)
    torch.testing.assert_close(module.codebook, started, atol=0.01, rtol=0)  # it goes on from there


def test_a_first_batch_with_fewer_vectors_than_codes_is_enough_to_start():
    module = EMAVectorQuantizer(64, 3).train()
    for step in range(4):
        assert module(features(2, 3, 4, 4, seed=step)).commitment_loss.isfinite()
    assert module(features(40, 3, 4, 4)).codebook_usage > 0.5


def test_a_refused_first_step_leaves_the_start_to_the_next():
    """A guard that puts the buffers back finds k-means done again, not random codes."""
    module = EMAVectorQuantizer(6, 3).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module(100 + features(2, 3, 4, 4))
    for name, buffer in module.named_buffers():
        buffer.copy_(before[name])
    assert module(100 + features(2, 3, 4, 4)).commitment_loss < 2


def test_a_saved_state_goes_on_bit_for_bit():
    def trained(steps, start=None):
        module = EMAVectorQuantizer(6, 3, decay=0.7, revival_threshold=0.5).train()
        if start is not None:
            module.load_state_dict(start)
        for step in steps:
            module(features(2, 3, 4, 4, seed=step))
        return module.state_dict()

    whole, resumed = trained(range(6)), trained(range(3, 6), trained(range(3)))
    assert set(whole) == {"codebook", "cluster_size", "sums", "num_updates"} and whole["num_updates"] == 6
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_training_in_half_precision_is_refused():
    module = quantizer().bfloat16()
    assert module.eval()(features(2, 3, 4, 4).bfloat16()).quantized.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="autocast"):
        module.train()(features(2, 3, 4, 4).bfloat16())


@pytest.mark.parametrize(
    "options",
    [{"decay": 1.0}, {"decay": -0.1}, {"epsilon": -1.0}, {"revival_threshold": 1.0}, {"kmeans_iterations": -1}],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        EMAVectorQuantizer(6, 3, **options)


def test_two_processes_have_the_codebook_of_one_with_the_whole_batch(tmp_path):
    assert in_processes(train_codebook_on_each, str(tmp_path), world_size=2) == [0, 0]
    one = train_codebook().state_dict()
    ranks = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    assert one["num_updates"] == 4
    for name, tensor in one.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], tensor, atol=1e-6, rtol=1e-6)


def test_nan_on_one_process_stops_the_step_on_both(tmp_path):
    assert in_processes(train_codebook_on_each, str(tmp_path), poison_step=2, world_size=2) == [0, 0]
    ranks = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    one = train_codebook(poison_step=2).state_dict()
    assert one["num_updates"] == 3
    for name, tensor in one.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], tensor, atol=1e-6, rtol=1e-6)


def test_what_is_chosen_of_a_batch_is_spread_over_rows_and_columns():
    """Every n-th vector would come from the same places of all pictures."""
    vectors = torch.arange(64 * 64).float()[:, None]  # 64 pictures of 8 x 8 positions
    for step in range(3):
        chosen = spread_choice(vectors, 512, torch.tensor(step * 512)).long()
        assert chosen.unique().numel() == 512
        for parts in (chosen // 64, chosen % 64, chosen % 8):
            counts = torch.bincount(parts[:, 0], minlength=1)
            assert counts.max() <= 2 * counts.float().mean() and counts.min() > 0
