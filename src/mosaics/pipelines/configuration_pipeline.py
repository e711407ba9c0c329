"""The config.json at the root of a saved DALL-E pipeline."""

from transformers import PreTrainedConfig


class DallePipelineConfig(PreTrainedConfig):
    """Marks a folder as a [`DallePipeline`].

    `transformers.pipeline` reads a config.json from the root of a repository before it looks at anything else. The
    components and their configs are in the subfolders that model_index.json names, so this one has no fields.
    """

    model_type = "mosaics_dalle_pipeline"
