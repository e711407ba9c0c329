"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.pipelines.dalle import DallePipeline as DallePipeline
from mosaics.pipelines.dalle_output import DallePipelineOutput as DallePipelineOutput
from mosaics.pipelines.text_to_image import TextToImagePipeline as TextToImagePipeline
from mosaics.pipelines.vqvae import VQVAEPipeline as VQVAEPipeline
from mosaics.pipelines.vqvae_output import ReconstructionOutput as ReconstructionOutput
from mosaics.pipelines.vqvae_output import VQVAEPipelineOutput as VQVAEPipelineOutput
