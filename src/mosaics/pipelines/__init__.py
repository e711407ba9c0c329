"""Pipelines: from a sentence to a picture."""

from mosaics.lazy_imports import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DallePipeline": "mosaics.pipelines.dalle",
        "DallePipelineOutput": "mosaics.pipelines.dalle_output",
        "TextToImagePipeline": "mosaics.pipelines.text_to_image",
    },
)
