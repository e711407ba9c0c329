import json
import math

import pytest
import torch
from PIL import Image
from torch import nn

from hub_server import TOKEN, HubServer
from mosaics.models.dvae import DiscreteVAE
from mosaics.training import IterateAverage, NonFiniteError, TrainingConfig, TrainingRun, learning_rate_at
from mosaics.training.finite import FiniteGuard
from mosaics.training.optimizer import decayed_parameters
from testing_utils import tiny_dvae
from training_programs import SmallAutoencoder, SmallPictures, small_model, small_run, train

PLAIN = {"dropout": 0.0, "normalize": False}


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_equal(some, others, **tolerance):
    assert some.keys() == others.keys()
    for name, tensor in some.items():
        torch.testing.assert_close(tensor, others[name], **(tolerance or {"rtol": 0, "atol": 0}), msg=name)


def rows(output_dir):
    return [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text().splitlines()]


def test_the_loop_takes_the_adamw_steps_of_a_loop_by_hand(tmp_path):
    run = small_run(tmp_path, model=small_model(**PLAIN), max_steps=6, max_grad_norm=0.01, ema_decay=0.9)
    model = small_model(**PLAIN)
    decayed = decayed_parameters(model)
    assert decayed == {"encoder.weight", "decoder.weight"}  # neither norms, nor biases, nor the embedding
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if n in decayed], "weight_decay": 0.01},
            {"params": [p for n, p in named if n not in decayed], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.99),
    )
    average = weights(model)
    for step, batch in enumerate(run):
        loss = run.model(batch["pixel_values"])
        model(batch["pixel_values"]).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        assert norm > 0.01  # the clipping is real
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, peak=0.01, end=0.0, warmup_steps=2, decay_steps=6)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(0.9, (2 + step) / (11 + step))
        average = {name: decay * average[name] + (1 - decay) * value for name, value in weights(model).items()}
        run.optimize(loss)
    assert run.step == 6
    assert_equal(weights(run.unwrapped_model), weights(model), rtol=1e-5, atol=1e-6)
    assert_equal(weights(SmallAutoencoder.from_pretrained(tmp_path)), average, rtol=1e-5, atol=1e-6)
    raw = SmallAutoencoder.from_pretrained(tmp_path / "checkpoint-00000006")
    assert_equal(weights(raw), weights(run.unwrapped_model))


def test_without_averaging_the_trained_weights_are_saved(tmp_path):
    run = train(tmp_path, max_steps=3, ema_decay=None)
    assert_equal(weights(SmallAutoencoder.from_pretrained(tmp_path)), weights(run.unwrapped_model))


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulated_gradients_equal_those_of_the_big_batch(tmp_path, accumulation):
    options = {"max_steps": 5, "max_grad_norm": None}
    big = train(tmp_path / "big", model=small_model(**PLAIN), train_batch_size=8, **options)
    steps = []
    run = small_run(
        tmp_path / "small",
        model=small_model(**PLAIN),
        train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        **options,
    )
    for batch in run:
        steps.append(run.step)
        run.optimize(run.model(batch["pixel_values"]))
    assert steps == [step for step in range(5) for _ in range(accumulation)]  # only whole steps count
    assert_equal(weights(run.unwrapped_model), weights(big.unwrapped_model), rtol=1e-4, atol=1e-6)
    ours, theirs = rows(tmp_path / "small")[-1], rows(tmp_path / "big")[-1]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_a_loop_that_broke_off_within_a_step_can_be_entered_again(tmp_path):
    options = {"max_steps": 4, "train_batch_size": 4, "gradient_accumulation_steps": 2}
    whole = train(tmp_path / "whole", model=small_model(**PLAIN), **options)
    run = small_run(tmp_path / "broken", model=small_model(**PLAIN), **options)
    for number, batch in enumerate(run):
        run.optimize(run.model(batch["pixel_values"]))
        if number == 4:  # the first of two micro-batches of step 2
            break
    assert run.step == 2
    for batch in run:
        run.optimize(run.model(batch["pixel_values"]))
    assert_equal(weights(run.unwrapped_model), weights(whole.unwrapped_model))


@pytest.mark.parametrize("deferred", [False, True])
def test_a_bad_batch_is_skipped_without_a_trace(tmp_path, deferred):
    def run_with(poison):
        run = small_run(
            tmp_path / f"{len(poison)}", dataset=SmallPictures(poison=poison), max_steps=5, nonfinite="skip"
        )
        run._guard = FiniteGuard(run.config, run.accelerator, run.unwrapped_model, deferred=deferred)
        before = after = None
        for batch in run:
            loss = run.model(batch["pixel_values"])
            bad = bool(loss.isnan())
            run.optimize(loss)
            current = (
                weights(run.unwrapped_model),  # with the running statistics of the norm
                {n: a.clone() for n, a in run.average.averages.items()},
                {
                    f"{i}/{name}": value.clone()
                    for i, state in enumerate(run.optimizer.state.values())
                    for name, value in state.items()
                },
            )
            before, after = after, current
            if bad:
                for was, now in zip(before, after, strict=True):
                    assert_equal(was, now)
        return run

    order = [index for step in range(1, 5) for _, index in run_with([])._sampler.keys(step)]
    run = run_with([order[5]])
    assert run._guard.state() == [1, 0]
    assert run.step == 5
    assert rows(tmp_path / "1")[-1]["refused_steps"] == 1
    assert math.isfinite(rows(tmp_path / "1")[0]["loss"])


@pytest.mark.parametrize("deferred", [False, True])
def test_a_bad_batch_stops_the_run_with_its_samples_named_and_finite_weights(tmp_path, deferred):
    run = small_run(tmp_path, dataset=SmallPictures(poison=range(20)), max_steps=5)
    run._guard = FiniteGuard(run.config, run.accelerator, run.unwrapped_model, deferred=deferred)
    before, first = weights(run.unwrapped_model), None
    with pytest.raises(NonFiniteError, match=r"Step 0 was refused.*1 of 1 processes") as caught:
        for batch in run:
            first = first or str([(0, index) for index in batch["index"].tolist()])
            run.optimize(run.model(batch["pixel_values"]))
    assert first in str(caught.value)
    after = weights(run.unwrapped_model)
    if deferred:  # a forward pass has begun in the meantime; nothing else
        before, after = ({n: t for n, t in w.items() if "norm.running" not in n and "num_batches" not in n} for w in (before, after))  # fmt: skip  # noqa: E501
    assert_equal(before, after)


def test_skipping_ends_when_too_many_steps_in_a_row_are_bad(tmp_path):
    with pytest.raises(NonFiniteError, match="4th in a row"):
        train(tmp_path, dataset=SmallPictures(poison=range(20)), nonfinite="skip", max_nonfinite_steps=3)


def test_an_infinite_gradient_of_a_finite_loss_is_refused(tmp_path):
    run = small_run(tmp_path)
    before = weights(run.unwrapped_model)
    with pytest.raises(NonFiniteError, match="loss was not finite on 0 and the gradient on 1"):
        for batch in run:
            loss = run.model(batch["pixel_values"])
            run.optimize(loss + (run.unwrapped_model.encoder.bias.abs() * 0).sqrt().sum())
    assert_equal(before, weights(run.unwrapped_model))


def test_evaluation_averages_over_samples_with_averaged_weights_and_leaves_training_as_it_was(tmp_path):
    def go(output_dir, eval_steps):
        run = small_run(output_dir, eval_dataset=SmallPictures(7, seed=3), max_steps=6, eval_steps=eval_steps)
        for batch in run:
            run.optimize(run.model(batch["pixel_values"]))
            if run.should_evaluate:
                own = weights(run.unwrapped_model)
                for eval_batch in run.evaluate_batches():
                    assert not run.model.training and not torch.is_grad_enabled()
                    torch.rand(3)
                    run.log_evaluation({"loss": run.model(eval_batch["pixel_values"])})
                assert_equal(own, weights(run.unwrapped_model))
                assert run.model.training
        return run

    run, silent = go(tmp_path / "a", 4), go(tmp_path / "b", None)
    assert_equal(weights(run.unwrapped_model), weights(silent.unwrapped_model))
    evaluations = [row for row in rows(tmp_path / "a") if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [4, 6]
    model = SmallAutoencoder.from_pretrained(tmp_path / "a").eval()
    pixels = torch.stack([SmallPictures(7, seed=3)[i]["pixel_values"] for i in range(7)])  # batches of 4 and 3
    with torch.no_grad():
        assert evaluations[-1]["eval_loss"] == pytest.approx(model(pixels).item(), rel=1e-5)


def test_the_discrete_vae_trains_in_bfloat16_on_the_cpu_and_is_loaded_from_the_output(tmp_path):
    config = TrainingConfig(
        output_dir=str(tmp_path), max_steps=3, train_batch_size=2, mixed_precision="bf16", progress_bar=False, cpu=True
    )
    pictures = [{"pixel_values": torch.rand(3, 16, 16)} for _ in range(6)]
    run = TrainingRun(config, tiny_dvae(), pictures, script_arguments={"kl_weight": 0.1})
    seen = []
    run.unwrapped_model.encoder.register_forward_hook(lambda *args: seen.append(torch.is_autocast_enabled("cpu")))
    for batch in run:
        output = run.model(batch["pixel_values"], gumbel_temperature=1.0, kl_weight=0.1)
        assert output.loss.dtype == torch.float32
        run.optimize(output.loss, log={"kl": output.kl})
    assert seen == [True] * 3 and torch.get_float32_matmul_precision() == "medium"
    assert {parameter.dtype for parameter in run.unwrapped_model.parameters()} == {torch.float32}
    model = DiscreteVAE.from_pretrained(tmp_path)
    assert_equal({n: p.detach() for n, p in model.named_parameters()}, run.average.averages)
    assert run.settings["script.kl_weight"] == 0.1 and run.settings["model.num_embeddings"] == 32


def test_averages_in_the_log_are_means_over_the_steps_since_the_last_line(tmp_path):
    losses = []
    run = small_run(tmp_path, max_steps=6)
    for batch in run:
        loss = run.model(batch["pixel_values"])
        losses.append(loss.item())
        run.optimize(loss, log={"step_squared": run.step**2})
    first, last = rows(tmp_path)
    assert (first["step"], last["step"]) == (4, 6)
    assert first["loss"] == pytest.approx(sum(losses[:4]) / 4)
    assert last["loss"] == pytest.approx(sum(losses[4:]) / 2)
    assert last["step_squared"] == (16 + 25) / 2
    assert first["grad_norm"] > 0 and first["images_per_second"] > 0


def test_image_grids_are_saved_beside_the_checkpoints(tmp_path):
    run = small_run(tmp_path)
    images = torch.zeros(5, 3, 8, 8)
    images[4, 0] = 2.0  # clipped to red
    path = run.log_images("samples", images, columns=3)
    assert path == tmp_path / "images" / "samples-00000000.png"
    with Image.open(path) as grid:
        assert grid.size == (3 * 10 + 2, 2 * 10 + 2)
        assert grid.getpixel((14, 14)) == (255, 0, 0) and grid.getpixel((4, 4)) == (0, 0, 0)
        assert grid.getpixel((24, 14)) == (255, 255, 255) == grid.getpixel((0, 0))
    with pytest.raises(ValueError, match=r"\(N, 1 or 3, H, W\), got \(3, 8, 8\)"):
        run.log_images("samples", images[0])


def test_a_loop_that_breaks_the_contract_is_told_how(tmp_path):
    with pytest.raises(RuntimeError, match=r"run\.optimize\(loss\) once for every batch"):
        for _ in small_run(tmp_path):
            pass
    run = small_run(tmp_path)
    with pytest.raises(RuntimeError, match="twice for one batch"):
        for batch in run:
            run.optimize(run.model(batch["pixel_values"]))
            run.optimize(run.model(batch["pixel_values"]))
    with pytest.raises(ValueError, match="one element"):
        run = small_run(tmp_path)
        for _ in run:
            run.optimize(torch.zeros(2))
    run = small_run(tmp_path)
    with pytest.raises(ValueError, match=r"'kl' must be one number, got a tensor of shape \(4,\)"):
        for batch in run:
            run.optimize(run.model(batch["pixel_values"]), log={"kl": torch.zeros(4)})
    with pytest.raises(RuntimeError, match="evaluate_batches"):
        run.log_evaluation({})
    with pytest.raises(ValueError, match="eval_dataset"):
        next(run.evaluate_batches())


def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="PreTrainedModel, got a Linear"):
        small_run(tmp_path, model=nn.Linear(2, 2))
    with pytest.raises(ValueError, match="holds 3 samples"):
        small_run(tmp_path, dataset=SmallPictures(3))
    with pytest.raises(ValueError, match="nothing to train"):
        small_run(tmp_path, model=small_model().requires_grad_(False))
    assert list(tmp_path.iterdir()) == []


def test_the_average_forgets_the_start_and_leaves_refused_steps_alone():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(100.0)
    average = IterateAverage(model, decay=0.999)
    model.weight.data.fill_(1.0)
    average.update(1, torch.tensor(0.0))
    assert average.state()["weight"].item() == 100.0
    for step in range(1, 400):
        average.update(step, torch.tensor(1.0))
    assert average.state()["weight"].item() == pytest.approx(1.0, abs=1e-3)
    with average.applied():
        assert model.weight.item() != 1.0
    assert model.weight.item() == 1.0


def test_frozen_parameters_stay_and_tied_ones_are_saved_once(tmp_path):
    model = small_model()
    model.norm.requires_grad_(False)
    frozen = model.norm.weight.clone()
    run = train(tmp_path, model=model, max_steps=3)
    assert torch.equal(run.unwrapped_model.norm.weight, frozen)
    assert "norm.weight" not in run.average.averages
    resumed_model = small_model()
    resumed_model.norm.requires_grad_(False)
    resumed = small_run(tmp_path, model=resumed_model, max_steps=3)
    assert_equal(weights(resumed.unwrapped_model), weights(run.unwrapped_model))


def test_trackers_get_the_numbers_and_the_pictures(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = small_run(tmp_path, max_steps=4, report_to="tensorboard")
    for batch in run:
        run.optimize(run.model(batch["pixel_values"]), log={"kl": 2.0})
        if run.step == 4:
            run.log_images("samples", batch["pixel_values"])
    events = event_accumulator.EventAccumulator(str(tmp_path / "logs" / tmp_path.name)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("kl")] == [(4, 2.0)]
    assert events.Images("samples")[0].step == 4


def test_half_precision_on_the_cpu_is_refused_and_not_ignored(tmp_path):
    with pytest.raises(ValueError, match="fp16 needs an accelerator"):
        small_run(tmp_path, mixed_precision="fp16")


def test_a_tracker_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(ValueError, match="report_to='comet_ml'"):
        small_run(tmp_path, report_to="comet_ml")


@pytest.fixture
def hub(monkeypatch):
    server = HubServer()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    template = "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE"
    monkeypatch.setattr(template, server.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with server:
        yield server


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # how huggingface_hub uploads
def test_the_end_of_a_run_is_pushed_without_its_checkpoints(tmp_path, hub):
    run = train(
        tmp_path, max_steps=3, push_to_hub=True, hub_model_id="tester/small", hub_private=True, hub_license="mit"
    )
    repo = hub.repos["tester/small"]
    assert {"model.safetensors", "config.json", "metrics.jsonl"} <= set(repo.files) and repo.private
    assert not [name for name in repo.files if "checkpoint" in name or "lock" in name or "rng" in name]
    assert repo.files["model.safetensors"] == (tmp_path / "model.safetensors").read_bytes()
    assert run.step == 3
    card = repo.files["README.md"].decode()
    for text in (
        "license: mit",
        "- Steps: 3 of ",
        "logical cores",
        f"torch {torch.__version__}",
        "learning_rate: 0.01",
    ):
        assert text in card


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # how huggingface_hub uploads
def test_a_push_that_fails_says_where_the_model_is_and_how_to_try_again(tmp_path, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(RuntimeError, match=r"trained model is in .*run the same command again"):
        train(tmp_path, max_steps=3, push_to_hub=True, hub_model_id="tester/small")
    assert SmallAutoencoder.from_pretrained(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    train(tmp_path, max_steps=3, push_to_hub=True, hub_model_id="tester/small")
    assert "model.safetensors" in hub.repos["tester/small"].files
