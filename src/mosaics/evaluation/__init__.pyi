"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.evaluation.codebook import CodeCounts as CodeCounts
from mosaics.evaluation.generation import evaluate_generation as evaluate_generation
from mosaics.evaluation.lpips import LPIPS as LPIPS
from mosaics.evaluation.networks import FeatureNetworks as FeatureNetworks
from mosaics.evaluation.reconstruction import evaluate_reconstruction as evaluate_reconstruction
from mosaics.evaluation.result import EvaluationResult as EvaluationResult
from mosaics.evaluation.result import Unavailable as Unavailable
