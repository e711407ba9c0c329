"""Small training programs, run by the tests in this process or in others, where they can be killed."""

import json
import multiprocessing
import os
import re
import resource
import signal
import socket
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from mosaics.training import CheckpointError, IterateAverage, TrainingConfig, TrainingRun, run_state
from mosaics.training.optimizer import build_optimizer
from mosaics.training.randomness import seed_rng


class SmallAutoencoderConfig(PreTrainedConfig):
    model_type = "test_small_autoencoder"
    width: int = 6
    dropout: float = 0.25
    normalize: bool = True


class SmallAutoencoder(PreTrainedModel):
    """Everything that makes resuming hard: dropout, noise, running statistics, an embedding, a norm."""

    config_class = SmallAutoencoderConfig

    def __init__(self, config):
        super().__init__(config)
        self.encoder = nn.Conv2d(3, config.width, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(config.width) if config.normalize else nn.GroupNorm(1, config.width)
        self.places = nn.Embedding(4, config.width)
        self.decoder = nn.ConvTranspose2d(config.width, 3, 2, stride=2)
        self.post_init()

    def forward(self, pixel_values):
        hidden = self.norm(self.encoder(pixel_values))
        hidden = hidden + self.places(torch.arange(hidden.shape[-1], device=hidden.device)).T[None, :, None]
        if self.training and self.config.dropout:
            hidden = F.dropout(hidden, self.config.dropout) + self.config.dropout * torch.randn_like(hidden)
        return F.mse_loss(self.decoder(hidden).sigmoid(), pixel_values)


class SmallPictures:
    """Pictures (3, 8, 8) that are a function of their number, each under random noise when `augmented`."""

    def __init__(self, length=20, augmented=False, poison=(), seed=0):
        self.length, self.augmented, self.poison, self.seed = length, augmented, set(poison), seed

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if not 0 <= index < self.length:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(self.seed * 1000 + index)
        pixels = torch.rand(3, 8, 8, generator=generator)
        if self.augmented:
            pixels = (pixels + 0.1 * torch.rand(3, 8, 8)).clamp(0, 1)
        if index in self.poison:
            pixels[0, 0, 0] = torch.nan
        return {"pixel_values": pixels, "index": index}


class PictureStream(torch.utils.data.IterableDataset):
    """The same pictures, front to back, rotated by the epoch."""

    def __init__(self, length=20):
        self.pictures, self.epoch = SmallPictures(length, augmented=True), 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        for number in range(len(self.pictures)):
            yield self.pictures[(number + self.epoch) % len(self.pictures)]


SMALL_RUN = {
    "max_steps": 14,
    "train_batch_size": 4,
    "warmup_steps": 2,
    "learning_rate": 0.01,
    "checkpointing_steps": 3,
    "checkpoints_total_limit": 2,
    "logging_steps": 4,
    "progress_bar": False,
    "cpu": True,
}


def small_model(**fields):
    seed_rng(7)
    return SmallAutoencoder(SmallAutoencoderConfig(**fields))


def small_run(output_dir, dataset=None, model=None, eval_dataset=None, **settings):
    config = TrainingConfig(output_dir=str(output_dir), **(SMALL_RUN | settings))
    dataset = SmallPictures(augmented=True) if dataset is None else dataset
    return TrainingRun(config, small_model() if model is None else model, dataset, eval_dataset)


def train(output_dir, *, before_step=None, **options):
    """Trains to the end; each step's samples and loss are appended to `trace.jsonl` at once."""
    run = small_run(output_dir, **options)
    for batch in run:
        if before_step is not None:
            before_step(run)
        loss = run.model(batch["pixel_values"])
        line = {"step": run.step, "samples": batch["index"].tolist(), "loss": loss.item()}
        with Path(output_dir, f"trace-{run.accelerator.process_index}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        run.optimize(loss, log={"half": 0.5})
    return run


# ---------------------------------------------------------------------- in another process


def in_processes(function, *arguments, world_size=1, timeout=120, **options):
    """Calls a function in new processes and returns their exit codes (negative: the signal that killed them)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mosaics.training.run", "torch.distributed.nn", "accelerate.tracking"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(world_size):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {name: str(value) for name, value in environment.items()} if world_size > 1 else {}
        target = (function, arguments, options, environment)
        processes.append(context.Process(target=_enter, args=target))
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    codes = [process.exitcode for process in processes]
    return codes[0] if world_size == 1 else codes


def _enter(function, arguments, options, environment):
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # for the workers of data loaders
    torch.set_num_threads(1)
    function(*arguments, **options)


def train_and_kill(output_dir, *, at_step=None, in_save=None, number=signal.SIGKILL, broken_restore=False, **options):
    """Trains, and kills this process before the update of a step, or before the n-th file operation of a save."""
    if broken_restore:
        import mosaics.training.run

        mosaics.training.run.restore_rng = lambda *arguments: None
    if in_save is not None:
        kill_in_save(*in_save)

    def before_step(run):
        if run.step == at_step:
            os.kill(os.getpid(), number)

    train(output_dir, before_step=before_step, **options)


def signal_twice(output_dir):
    """Receives SIGTERM twice in step 4."""

    def before_step(run):
        if run.step == 4:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    train(output_dir, before_step=before_step)


def train_with_a_full_disk(output_dir, step):
    """From a step on, no file can grow beyond 1,000 bytes; returns if that was reported well."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def before_step(run):
        if run.step == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))

    try:
        train(output_dir, before_step=before_step, progress_bar=False)
    except CheckpointError as error:
        message = str(error)
        assert "safetensors" in message and "It needs 2." in message and "intact" in message, message
    else:
        raise AssertionError("the full disk went unnoticed")


def train_beside_another_run(output_dir):
    """Returns if the run is told that another one is at work in the folder."""
    try:
        train(output_dir)
    except RuntimeError as error:
        assert f"Another run is writing to {output_dir}" in str(error), str(error)
    else:
        raise AssertionError("two runs at a time")


class DeadlyPictures(SmallPictures):
    """Kills the worker process that reads them, after ten batches of four."""

    def __getitem__(self, index):
        worker = torch.utils.data.get_worker_info()
        if worker is not None and self.reads >= 40:
            os.kill(os.getpid(), signal.SIGKILL)
        self.reads += 1
        return super().__getitem__(index)

    reads = 0


def train_with_a_killed_reader(output_dir):
    """A worker is killed after 40 samples; returns if the error says so."""
    try:
        train(output_dir, dataset=DeadlyPictures(), dataloader_num_workers=1)
    except RuntimeError as error:
        assert "worker" in str(error) and re.search("killed|exited unexpectedly", str(error)), str(error)
    else:
        raise AssertionError("the killed worker went unnoticed")


FILE_OPERATIONS = ("mosaics.training.run_state.save_file", "os.fsync", "os.rename", "shutil.rmtree", "os.unlink")


def kill_in_save(save, operation):
    """Arranges for SIGKILL just before file operation number `operation` of save number `save`, both from 1."""
    import importlib

    from mosaics.training import checkpointing, run

    counts = {"save": 0, "operation": 0}
    original = checkpointing.save_checkpoint

    def counted_save(*arguments, **options):
        counts["save"] += 1
        counts["operation"] = 0
        return original(*arguments, **options)

    def counted(function):
        def call(*arguments, **options):
            counts["operation"] += 1
            if counts["save"] == save and counts["operation"] == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    run.save_checkpoint = checkpointing.save_checkpoint = counted_save
    for path in FILE_OPERATIONS:
        module, _, name = path.rpartition(".")
        module = importlib.import_module(module)
        setattr(module, name, counted(getattr(module, name)))


def save_twice(root, operation):
    """Saves steps 1 and 2, keeping one; killed before file operation number `operation` of the second save."""
    kill_in_save(2, operation)
    from mosaics.training import checkpointing, run_state

    for step in (1, 2):

        def write(folder, step=step):
            (folder / "averaged").mkdir()
            for name in ("model", "optimizer", "averaged/model"):
                run_state.write_tensors(folder / f"{name}.safetensors", {"weight": torch.full((64,), float(step))})
            (folder / "state.json").write_text(json.dumps({"step": step}))

        path = checkpointing.save_checkpoint(Path(root), step, write)
        checkpointing.prune_checkpoints(Path(root), 1, path)


PLAIN = {"dropout": 0.0, "normalize": False}  # one pass over the data is then the same however it is shared


def train_plain(output_dir, **options):
    train_and_kill(output_dir, model=small_model(**PLAIN), max_grad_norm=0.05, **options)


def trace(output_dir, rank=0):
    lines = (Path(output_dir) / f"trace-{rank}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def terminate_one(output_dir):
    only_rank_one = 4 if os.environ["RANK"] == "1" else None
    train_plain(output_dir, at_step=only_rank_one, number=signal.SIGTERM, max_steps=8)


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


def shard_and_resume(output_dir):
    """Steps, saves and loads a model under `fully_shard`, and loads what it saved into a model that is not sharded."""
    accelerator = Accelerator(cpu=True)
    pixels = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def build(sharded):
        model = small_model(**PLAIN)
        if sharded:
            fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
        config = TrainingConfig(learning_rate=0.01)
        return model, build_optimizer(model, config, torch.device("cpu")), IterateAverage(model, 0.9)

    def step(model, optimizer, average, number):
        model(pixels).backward()
        norm = accelerator.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        optimizer.zero_grad()
        average.update(number, torch.tensor(1.0))
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def state(model, optimizer, average):
        everything = dict(run_state.model_state(accelerator, model))
        everything |= run_state.optimizer_state(accelerator, model, optimizer)
        return everything | {f"average/{name}": tensor for name, tensor in average.state().items()}

    sharded, whole = build(True), build(False)
    for number in (1, 2, 3):
        torch.testing.assert_close(step(*sharded, number), step(*whole, number))
    states = [{n: t.clone() for n, t in state(*some).items()} for some in (sharded, whole)]
    path = Path(output_dir, "state.safetensors")
    if accelerator.is_main_process:  # the whole tensors of a sharded model are gathered on the main process only
        assert states[0].keys() == states[1].keys()
        for name, tensor in states[0].items():
            torch.testing.assert_close(tensor, states[1][name], rtol=1e-3, atol=1e-9, msg=name)
        run_state.write_tensors(path, states[0])
    accelerator.wait_for_everyone()
    saved = run_state.read_tensors(path)
    averages = {name.removeprefix("average/"): t for name, t in saved.items() if name.startswith("average/")}
    moments = {name: t for name, t in saved.items() if "/" in name and not name.startswith("average/")}
    weights = {name: t for name, t in saved.items() if "/" not in name}
    for resumed in (build(True), build(False)):
        model, optimizer, average = resumed
        run_state.check_model_state(accelerator, model, weights, path)
        run_state.check_optimizer_state(accelerator, model, moments, path)
        run_state.load_model_state(accelerator, model, weights)
        run_state.load_optimizer_state(accelerator, model, optimizer, moments)
        average.load_state(averages)
        for name, tensor in state(*resumed).items():
            assert torch.equal(tensor, saved[name]), name
        step(*resumed, 4)
    step(*sharded, 4)
    after = [state(*some) for some in (sharded, resumed)]
    if accelerator.is_main_process:
        for name, tensor in after[0].items():
            torch.testing.assert_close(tensor, after[1][name], rtol=1e-4, atol=1e-6, msg=name)


if __name__ == "__main__":  # python -m torch.distributed.run training_programs.py output_dir
    train_and_kill(sys.argv[1], at_step=4 if os.environ.get("RANK") == "1" else None)
