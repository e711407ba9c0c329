"""Pipelines: from a sentence or a class to a picture."""

from mosaics.lazy_imports import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DallePipeline": "mosaics.pipelines.dalle",
        "DallePipelineOutput": "mosaics.pipelines.dalle_output",
        "ReconstructionOutput": "mosaics.pipelines.vqvae_output",
        "TextToImagePipeline": "mosaics.pipelines.text_to_image",
        "VQVAEPipeline": "mosaics.pipelines.vqvae",
        "VQVAEPipelineOutput": "mosaics.pipelines.vqvae_output",
    },
)
