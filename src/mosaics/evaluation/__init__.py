"""How good an image tokenizer or a pipeline is, in the field's numbers.

Needs `pip install "mosaics[eval]"`. The names are imported when they are first used.
"""

from mosaics.lazy_imports import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "LPIPS": "mosaics.evaluation.lpips",
        "CodeCounts": "mosaics.evaluation.codebook",
        "EvaluationResult": "mosaics.evaluation.result",
        "FeatureNetworks": "mosaics.evaluation.networks",
        "Unavailable": "mosaics.evaluation.result",
        "evaluate_generation": "mosaics.evaluation.generation",
        "evaluate_reconstruction": "mosaics.evaluation.reconstruction",
    },
)
