"""What an evaluation returns: numbers, and why one is missing."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple


class Unavailable(Exception):
    """A metric cannot be computed here; the message says why and what would make it possible."""


class Measured(NamedTuple):
    """The value of a metric, and a remark to be read with it."""

    value: float | list[float]
    remark: str = ""


class Metric(NamedTuple):
    """How a metric is shown."""

    label: str
    unit: str
    better: str  # "higher", "lower", or "" where neither is


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "psnr": Metric("PSNR", "dB", "higher"),
        "ssim": Metric("SSIM", "", "higher"),
        "mse": Metric("mean squared error", "", "lower"),
        "lpips": Metric("LPIPS", "", "lower"),
        "rfid": Metric("rFID", "", "lower"),
        "fid": Metric("FID", "", "lower"),
        "frechet_efficientnet_lite0": Metric("Frechet distance, EfficientNet-Lite0", "", "lower"),
        "codebook_usage": Metric("codebook usage", "share", "higher"),
        "perplexity": Metric("perplexity", "codes", "higher"),
        "bits_per_dim": Metric("bits per dimension", "bits", "lower"),
        "bits_per_dim_prior": Metric("bits per dimension, learned prior", "bits", "lower"),
        "images_per_second": Metric("speed", "images/s", "higher"),
        "clip_score": Metric("CLIP score", "cosine", "higher"),
        "clip_score_real": Metric("CLIP score of the real pictures", "cosine", ""),
        "caption_correctness": Metric("captions drawn right", "share", "higher"),
        "seconds_per_picture": Metric("time for a picture", "s", "lower"),
        "candidates_per_second": Metric("speed", "candidates/s", "higher"),
    }
)


@dataclass
class EvaluationResult:
    """The numbers of one evaluation.

    Args:
        kind: `"reconstruction"` or `"generation"`.
        checkpoint: What was evaluated.
        dataset: On what.
        num_images: Pictures that went into the numbers.
        metrics: Value of each metric by its name in [`METRICS`]; a list with a value for each level of codes, top
            first; `None` if it could not be computed.
        remarks: For a metric that is `None` the reason; for others what has to be known to read them.
        settings: What the numbers depend on beside the data.
    """

    kind: str
    checkpoint: str
    dataset: str
    num_images: int
    metrics: dict[str, float | list[float] | None] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def record(self, name: str, measured: Measured) -> None:
        """Takes in a metric's value and remark."""
        self.metrics[name] = measured.value
        if measured.remark:
            self.remarks[name] = measured.remark

    def record_missing(self, name: str, reason: str) -> None:
        """Takes in that a metric could not be computed."""
        self.metrics[name], self.remarks[name] = None, reason

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON knows it: what is infinite or no number is `None`, and `remarks` says which."""
        metrics, remarks = {}, dict(self.remarks)
        for name, value in self.metrics.items():
            numbers = [number for number in (value if isinstance(value, list) else [value]) if number is not None]
            odd = [number for number in numbers if not math.isfinite(number)]
            if odd:
                kind = "not a number" if math.isnan(odd[0]) else "infinite"
                remarks[name] = f"{kind}: {remarks[name]}" if name in remarks else kind
            metrics[name] = None if odd else value
        return {
            "kind": self.kind,
            "checkpoint": self.checkpoint,
            "dataset": self.dataset,
            "num_images": self.num_images,
            "metrics": metrics,
            "remarks": remarks,
            "settings": self.settings,
        }

    def table(self) -> str:
        """The result for people: a line for each metric, and the remarks below."""
        width = max((len(METRICS[name].label) for name in self.metrics), default=0)
        lines = [f"{self.kind} of {self.checkpoint} on {self.num_images} pictures of {self.dataset}"]
        for name, value in self.metrics.items():
            metric = METRICS[name]
            shown = "-" if value is None else f"{_shown(value)} {metric.unit}".rstrip()
            better = f"  ({metric.better} is better)" if metric.better and value is not None else ""
            lines.append(f"  {metric.label:{width}}  {shown}{better}")
        lines += [f"{METRICS[name].label}: {remark}" for name, remark in self.remarks.items()]
        return "\n".join(lines)


def _shown(value: float | list[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in (value if isinstance(value, list) else [value]))
