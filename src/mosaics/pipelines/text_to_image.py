"""`transformers.pipeline("text-to-image")`: a thin adapter over [`DallePipeline`], which does the work."""

import os
from typing import Any

import torch
from transformers.pipelines.base import Pipeline


class DallePipelineLoader:
    """What transformers calls to load the model of the task."""

    @classmethod
    def from_pretrained(cls, path: str, **kwargs: Any) -> Any:
        """Loads a [`DallePipeline`]; the arguments are those transformers gives to models."""
        from mosaics.pipelines.dalle import DallePipeline

        for name in ("trust_remote_code", "code_revision", "_from_pipeline", "_commit_hash"):
            kwargs.pop(name, None)
        if not isinstance(kwargs.get("dtype"), torch.dtype):
            kwargs.pop("dtype", None)  # "auto": the pipeline's default
        return DallePipeline.from_pretrained(
            path, **{name: value for name, value in kwargs.items() if value is not None}
        )


class TextToImagePipeline(Pipeline):
    """The transformers task `"text-to-image"`.

    Calling it with a sentence gives a PIL image, or a list of them if `num_images_per_prompt` is above 1; with a list
    of sentences, a list of these. All arguments of [`DallePipeline`] are accepted by keyword.

    Example:
    ```python
    >>> from mosaics import pipeline

    >>> draw = pipeline("text-to-image")  # doctest: +SKIP
    >>> draw("a lion on a blue background", num_candidates=16, seed=0).save("lion.png")  # doctest: +SKIP

    ```
    """

    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False
    _load_video_processor = False

    def _sanitize_parameters(self, **arguments: Any) -> tuple[dict, dict, dict]:
        return {}, arguments, {}

    def preprocess(self, prompt: str) -> dict[str, Any]:
        """Passes the sentence on; the pipeline checks and tokenizes it."""
        return {"prompt": prompt}

    def _forward(self, inputs: dict[str, Any], **arguments: Any) -> dict[str, Any]:
        return {"images": self.model(inputs["prompt"], **arguments).images}

    def postprocess(self, outputs: dict[str, Any]) -> Any:
        """The picture, or the pictures if there are several."""
        images = outputs["images"]
        return images[0] if len(images) == 1 else images

    def get_inference_context(self) -> type[torch.no_grad]:
        """The pipeline's own `torch.no_grad`."""
        return torch.no_grad

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves the [`DallePipeline`]; the base class would make the next load ask for `trust_remote_code`."""
        self.model.save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Pushes the [`DallePipeline`]."""
        return self.model.push_to_hub(repo_id, **kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model})"
