"""What every Mosaics pipeline does with files: strict loading, saving, pushing."""

import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from mosaics.models.weights_check import refuse_nonfinite
from mosaics.pipelines.hub import (
    PUSH_ARGUMENTS,
    PipelineCard,
    PipelineFolderError,
    check_pipeline_folder,
    forget_download,
    push_folder,
)

DOWNLOAD_ARGUMENTS = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "variant")


class PretrainedPipelineMixin:
    """Comes before `DiffusionPipeline` among the bases of a pipeline; `model_cpu_offload_seq` names its models.

    It does not import diffusers: the import of diffusers' pipelines brings in all of ours (see
    `mosaics.registration`), which must find this class complete.

    Attributes:
        card: The README.md of a pushed pipeline that has none.
        root_config_class: Config whose config.json is written beside model_index.json, if any.
    """

    card: ClassVar[PipelineCard]
    root_config_class: ClassVar[type[PreTrainedConfig] | None] = None
    model_cpu_offload_seq: str

    @classmethod
    def model_names(cls) -> tuple[str, ...]:
        """The components that have weights."""
        return tuple(cls.model_cpu_offload_seq.split("->"))

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, repo_id: str | None = None, **kwargs: Any
    ) -> None:
        """Writes every part into its own folder, and model_index.json.

        Args:
            save_directory: Folder; made if it does not exist.
            push_to_hub: Upload the folder afterwards.
            repo_id: Repository to push to; the folder's name by default.
            **kwargs: As in `DiffusionPipeline.save_pretrained`.

        Raises:
            WeightsError: A weight is NaN or infinite. Nothing is written then.
        """
        for name in self.model_names():
            if getattr(self, name) is not None:
                refuse_nonfinite(getattr(self, name).state_dict(), name)
        push_arguments = {key: kwargs.pop(key) for key in PUSH_ARGUMENTS if key in kwargs}
        super().save_pretrained(save_directory, **kwargs)
        if self.root_config_class is not None:
            self.root_config_class().save_pretrained(save_directory)
        if push_to_hub:
            self._push(save_directory, repo_id or Path(save_directory).name, push_arguments)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Uploads the pipeline to a Hub repository, which is made if needed; an existing README.md there is kept.

        Args:
            repo_id: `"user/name"`.
            **kwargs: `commit_message`, `private`, `token`, `create_pr`, `variant`, `max_shard_size`.

        Returns:
            The address of the commit.
        """
        push_arguments = {key: kwargs.pop(key) for key in PUSH_ARGUMENTS if key in kwargs}
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **kwargs)
            return self._push(folder, repo_id, push_arguments)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Loads a pipeline from a folder or a Hub repository, strictly, as every Mosaics model.

        Args:
            pretrained_model_name_or_path: Folder written by `save_pretrained`, or a Hub id.
            **kwargs: As in `DiffusionPipeline.from_pretrained`. `dtype` is float32 if not given, whatever was saved;
                `None` for an optional component leaves it out.

        Raises:
            PipelineFolderError: The folder is no complete pipeline.
            WeightsError: Weights are missing, damaged or do not fit.
            ComponentsDisagreeError: Parts that were not made for each other.
        """
        source = str(pretrained_model_name_or_path)
        if kwargs.get("dtype") is None and kwargs.get("torch_dtype") is None:
            kwargs["dtype"] = torch.float32
        folder = source
        if not os.path.isdir(source):
            download_arguments = {key: value for key, value in kwargs.items() if key in DOWNLOAD_ARGUMENTS}
            if kwargs.get("force_download"):
                forget_download(source, kwargs.get("cache_dir"))
            try:
                folder = str(cls.download(source, **download_arguments))
            except OSError as error:  # diffusers leaves the reason to the traceback
                reason = error.__cause__ or error
                raise PipelineFolderError(
                    f"{source!r} is no folder here, and cannot be loaded from the Hub: {reason}"
                ) from error
        components, settings = cls._get_signature_keys(cls)
        passed = [key for key in (*components, *settings) if key in kwargs]
        check_pipeline_folder(Path(folder), cls.__name__, components, cls.model_names(), settings, passed)
        pipe = super().from_pretrained(folder, **kwargs)
        pipe.register_to_config(_name_or_path=source)
        return pipe

    def _push(self, folder: str | os.PathLike, repo_id: str, arguments: dict[str, Any]) -> str:
        message = arguments.pop("commit_message", None) or f"Upload {type(self).__name__}"
        return push_folder(folder, repo_id, self.card, message, **arguments)

    def _on_device(self, name: str) -> PreTrainedModel:
        """A model, brought in by its offload hook if it has one: hooks wrap `forward`, not `generate` or `decode`."""
        model = getattr(self, name)
        hook = getattr(model, "_hf_hook", None)
        if hook is not None and hasattr(hook, "pre_forward"):
            hook.pre_forward(model)
        return model
