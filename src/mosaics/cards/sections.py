"""The sections of a card, each the text of one heading."""

from collections.abc import Iterable, Mapping, Sequence

import yaml

from mosaics.cards.measurement import Measurement
from mosaics.cards.run_folder import TrainingRunFacts

NOT_STATED = "Not stated."
COMMAND_WIDTH = 120


def use_section(program: str, repo_with_code: str | None = None) -> str:
    """A program that runs, and another for who has no Mosaics if the repository holds the model's code."""
    text = f"```python\n{program.rstrip()}\n```\n"
    if repo_with_code is not None:
        text += (
            "\nWithout Mosaics, with the code in this repository:\n\n```python\nfrom transformers import AutoModel\n\n"
            f'model = AutoModel.from_pretrained("{repo_with_code}", trust_remote_code=True).eval()\n```\n'
        )
    return text


def data_section(runs: Mapping[str, TrainingRunFacts], datasets: Sequence[str]) -> str:
    """What it was trained on, as far as the runs say."""
    lines = [f"- Data set: `{name}`" for name in datasets]
    for part, run in runs.items():
        label = "" if len(runs) == 1 else f"{part}: "
        for field in ("dataset", "codes", "dataset_options", "eval_split", "num_eval_samples"):
            value = run.settings.get(f"script.{field}")
            if value is not None and value not in datasets:
                lines.append(f"- {label}`{field}`: `{value}`")
        fingerprint = run.settings.get("train_dataset")
        if fingerprint:
            samples = fingerprint.partition("-")[0]
            count = f"{int(samples):,} samples, " if samples.isdigit() else ""
            lines.append(f"- {label}{count}fingerprint `{fingerprint}`")
    if not lines:
        return NOT_STATED
    return "\n".join([*lines, "- Licences of the data: not stated"])


def training_section(runs: Mapping[str, TrainingRunFacts]) -> str:
    """Command, configuration, seed, hardware and time of every run."""
    if not runs:
        return NOT_STATED
    if len(runs) == 1:
        return _run(next(iter(runs.values())))
    return "\n\n".join(f"### {part}\n\n{_run(run)}" for part, run in runs.items())


def _run(run: TrainingRunFacts) -> str:
    settings, last = run.settings, run.sessions[-1] if run.sessions else None
    command = f"```\n{_wrapped(run.command)}\n```" if run.command else "Command: not stated."
    steps = None if run.step is None else f"{run.step:,}"
    if steps and "samples_per_step" in settings:
        steps += f" of {settings['samples_per_step']:,} samples"
    precision = settings.get("mixed_precision")
    facts = {
        "Steps": steps,
        "Seed": settings.get("seed"),
        "Precision": "float32" if precision == "no" else precision,
        "Processes": last and last.num_processes,
        "Hardware": last and last.hardware,
        "Time": run.sessions and _duration(sum(session.seconds for session in run.sessions)),
        "Software": last and last.software,
    }
    lines = [f"- {name}: {'not stated' if value in (None, ()) else value}" for name, value in facts.items()]
    shown = {name: value for name, value in settings.items() if not name.startswith("model.") and value is not None}
    if not shown:
        return "\n".join([command, "", *lines, "- Configuration: not stated"])
    listed = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=COMMAND_WIDTH)
    return "\n".join(
        [command, "", *lines, "", f"Configuration; that of the network is `config.json`:\n\n```yaml\n{listed}```"]
    )


def _wrapped(command: str) -> str:
    """A long command over several lines, as a shell takes it."""
    lines = [""]
    for word in command.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) > COMMAND_WIDTH and word.startswith("--"):
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return " \\\n".join(lines)


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def evaluation_section(measurements: Sequence[Measurement]) -> str:
    """Every number with the command that prints it."""
    if not measurements:
        return NOT_STATED
    rows = [
        f"| {m.name} | {m.value:.6g} | {' '.join(filter(None, (m.dataset, m.split))) or 'not stated'} | "
        f"{f'`{m.command}`' if m.command else 'not stated'} |"
        for m in measurements
    ]
    return "\n".join(["| Metric | Value | Data | Command |", "| --- | --- | --- | --- |", *rows])


def limits_section(limits: Sequence[str]) -> str:
    """What it cannot do."""
    return "\n".join(f"- {sentence}" for sentence in limits) if limits else NOT_STATED


def citation_section(entries: Iterable[str]) -> str:
    """The papers, as BibTeX, each once."""
    return "\n\n".join(f"```bibtex\n{entry}\n```" for entry in dict.fromkeys(entries)) or NOT_STATED
