"""Makes Mosaics known to transformers and diffusers. The only code of the package with effects at import time.

Both libraries import most of themselves on first use. [`register`] does not force that: each registration waits until
the module it writes to has been imported, by whoever needs it, and happens at once if it already was.

diffusers has no public way in. Two entries are written (checked by `tests/pipelines/test_diffusers_hooks.py`):
`LOADABLE_CLASSES["mosaics"]`, without which a pipeline loads from a folder and not from the Hub, and
`diffusers.DallePipeline`, without which `DiffusionPipeline.from_pretrained` does not find the class.
"""

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

TASK = "text-to-image"


def register() -> None:
    """Arranges every registration; calling it again changes nothing."""
    for module_name, action in ACTIONS.items():
        _when_imported(module_name, action)


def _register_configs(configuration_auto: ModuleType) -> None:
    from mosaics.models.dalle.configuration_dalle import DalleTransformerConfig
    from mosaics.models.dvae.configuration_dvae import DiscreteVAEConfig
    from mosaics.pipelines.configuration_pipeline import DallePipelineConfig

    for config in (DiscreteVAEConfig, DalleTransformerConfig, DallePipelineConfig):
        configuration_auto.AutoConfig.register(config.model_type, config, exist_ok=True)


def _register_models(modeling_auto: ModuleType) -> None:
    from mosaics.models.dalle.configuration_dalle import DalleTransformerConfig
    from mosaics.models.dalle.modeling_dalle import DalleTransformer
    from mosaics.models.dvae.configuration_dvae import DiscreteVAEConfig
    from mosaics.models.dvae.modeling_dvae import DiscreteVAE

    modeling_auto.AutoModel.register(DiscreteVAEConfig, DiscreteVAE, exist_ok=True)
    modeling_auto.AutoModel.register(DalleTransformerConfig, DalleTransformer, exist_ok=True)


def _register_image_processors(image_processing_auto: ModuleType) -> None:
    from mosaics.models.dvae.configuration_dvae import DiscreteVAEConfig
    from mosaics.models.dvae.image_processing_dvae import DiscreteVAEImageProcessor

    image_processing_auto.AutoImageProcessor.register(
        DiscreteVAEConfig, image_processor_classes={"pil": DiscreteVAEImageProcessor}, exist_ok=True
    )


def _register_task(pipelines: ModuleType) -> None:
    from mosaics.pipelines.default import CHECKPOINTS, DEFAULT_CHECKPOINT
    from mosaics.pipelines.text_to_image import DallePipelineLoader, TextToImagePipeline

    if TASK not in pipelines.PIPELINE_REGISTRY.supported_tasks:
        pipelines.PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=TextToImagePipeline,
            pt_model=DallePipelineLoader,
            default={"model": (str(CHECKPOINTS / DEFAULT_CHECKPOINT), "main")},
            type="text",
        )


def _register_library(pipeline_loading_utils: ModuleType) -> None:
    pipeline_loading_utils.LOADABLE_CLASSES.setdefault("mosaics", {})


def _register_diffusion_pipeline(pipeline_utils: ModuleType) -> None:
    import diffusers

    from mosaics.pipelines.dalle import DallePipeline

    diffusers.DallePipeline = DallePipeline


def _register_auto_pipeline(auto_pipeline: ModuleType) -> None:
    from mosaics.pipelines.dalle import DallePipeline

    auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.setdefault("dalle", DallePipeline)


ACTIONS: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _register_configs,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.image_processing_auto": _register_image_processors,
    "transformers.pipelines": _register_task,
    "diffusers.pipelines.pipeline_loading_utils": _register_library,
    "diffusers.pipelines.pipeline_utils": _register_diffusion_pipeline,
    "diffusers.pipelines.auto_pipeline": _register_auto_pipeline,
}


class _ActionLoader(Loader):
    """Loads a module with its own loader, then runs the action that waited for it."""

    def __init__(self, loader: Loader, finder: "_ActionFinder"):
        self.loader = loader
        self.finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self.loader  # the module never sees the detour
        self.loader.exec_module(module)
        action = self.finder.waiting.pop(module.__name__, None)
        if action is not None:
            action(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


class _ActionFinder(MetaPathFinder):
    """Hands the modules that an action waits for to an [`_ActionLoader`]; all others go their usual way."""

    def __init__(self):
        self.waiting: dict[str, Callable[[ModuleType], None]] = {}
        self.searching: set[str] = set()

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self.waiting or fullname in self.searching:
            return None
        self.searching.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.searching.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _ActionLoader(spec.loader, self)
        return spec


_finder = _ActionFinder()


def _when_imported(module_name: str, action: Callable[[ModuleType], None]) -> None:
    """Runs `action(module)` right after the module's first import; now, if that has happened."""
    if module_name in sys.modules:
        action(sys.modules[module_name])
        return
    _finder.waiting[module_name] = action
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
