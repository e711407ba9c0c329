"""Mosaics: images as mosaics of codebook entries.

Names are imported when they are first used, so `import mosaics` costs almost nothing by itself. It makes the
models known to transformers (`AutoModel`, `pipeline("text-to-image")`) and diffusers (`DiffusionPipeline`).
"""

from mosaics.lazy_imports import lazy_names
from mosaics.registration import register

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DallePipelineOutput": "mosaics.pipelines.dalle_output",
        "DallePipeline": "mosaics.pipelines.dalle",
        "DallePipelineConfig": "mosaics.pipelines.configuration_pipeline",
        "DalleTransformer": "mosaics.models.dalle.modeling_dalle",
        "DalleTransformerConfig": "mosaics.models.dalle.configuration_dalle",
        "DiscreteVAE": "mosaics.models.dvae.modeling_dvae",
        "DiscreteVAEConfig": "mosaics.models.dvae.configuration_dvae",
        "DiscreteVAEImageProcessor": "mosaics.models.dvae.image_processing_dvae",
        "PreTrainedModel": "transformers",  # diffusers looks for the base class in the library model_index.json names
        "default_checkpoint": "mosaics.pipelines.default",
        "pipeline": "transformers",
    },
)

register()
