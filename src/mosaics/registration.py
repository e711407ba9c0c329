"""Makes Mosaics known to transformers and diffusers. The only code of the package with effects at import time.

Both libraries import most of themselves on first use. [`register`] does not force that: each registration waits until
the module it writes to has been imported, by whoever needs it, and happens at once if it already was.

diffusers has no public way in. Two entries are written (checked by `tests/pipelines/test_diffusers_hooks.py`):
`LOADABLE_CLASSES["mosaics"]`, without which a pipeline loads from a folder and not from the Hub, and
`diffusers.DallePipeline` and its like, without which `DiffusionPipeline.from_pretrained` does not find the class.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

TASK = "text-to-image"
DVAE, DALLE, PIPELINES = "mosaics.models.dvae", "mosaics.models.dalle", "mosaics.pipelines"
PIXELCNN, WAVENET = "mosaics.models.pixelcnn", "mosaics.models.wavenet"
VQVAE, VQVAE2 = "mosaics.models.vqvae", "mosaics.models.vqvae2"
DALLE_PYTORCH, DALLE_PYTORCH_VAE = "mosaics.models.dalle.dalle_pytorch", "mosaics.models.dalle_pytorch_vae"
AUDIO_VQVAE, VQGAN = "mosaics.models.audio_vqvae", "mosaics.models.vqgan"
# It imports AutoModel half-way through, and our models import it.
MODELING_LAYERS = "transformers.modeling_layers"


def register() -> None:
    """Arranges every registration; calling it again changes nothing."""
    if _finder in sys.meta_path:
        return
    sys.meta_path.insert(0, _finder)
    for theirs, ours, action in REGISTRATIONS:
        _when_both_imported(theirs, ours, action)


def _config(class_name: str) -> Callable[[ModuleType, ModuleType], None]:
    def action(configuration_auto: ModuleType, ours: ModuleType) -> None:
        config = getattr(ours, class_name)
        configuration_auto.AutoConfig.register(config.model_type, config, exist_ok=True)

    return action


def _model(class_name: str) -> Callable[[ModuleType, ModuleType], None]:
    def action(modeling_auto: ModuleType, ours: ModuleType) -> None:
        model = getattr(ours, class_name)
        modeling_auto.AutoModel.register(model.config_class, model, exist_ok=True)

    return action


def _image_processor(image_processing_auto: ModuleType, ours: ModuleType) -> None:
    from mosaics.models.dvae.configuration_dvae import DiscreteVAEConfig

    image_processing_auto.AutoImageProcessor.register(
        DiscreteVAEConfig, image_processor_classes={"pil": ours.DiscreteVAEImageProcessor}, exist_ok=True
    )


def _task(pipelines: ModuleType, ours: ModuleType) -> None:
    from mosaics.pipelines.default import CHECKPOINTS, DEFAULT_CHECKPOINT

    pipelines.PIPELINE_REGISTRY.register_pipeline(
        TASK,
        pipeline_class=ours.TextToImagePipeline,
        pt_model=ours.DallePipelineLoader,
        default={"model": (str(CHECKPOINTS / DEFAULT_CHECKPOINT), "main")},
        type="text",
    )


def _library(pipeline_loading_utils: ModuleType, ours: ModuleType) -> None:
    pipeline_loading_utils.LOADABLE_CLASSES.setdefault("mosaics", {})


def _diffusion_pipeline(class_name: str) -> Callable[[ModuleType, ModuleType], None]:
    def action(pipeline_utils: ModuleType, ours: ModuleType) -> None:
        setattr(sys.modules["diffusers"], class_name, getattr(ours, class_name))

    return action


def _auto_pipeline(auto_pipeline: ModuleType, ours: ModuleType) -> None:
    auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.setdefault("dalle", ours.DallePipeline)


# Their module, ours, and what joins them once both are imported.
REGISTRATIONS: tuple[tuple[str, str, Callable[[ModuleType, ModuleType], None]], ...] = (
    ("transformers.models.auto.configuration_auto", f"{DVAE}.configuration_dvae", _config("DiscreteVAEConfig")),
    ("transformers.models.auto.configuration_auto", f"{DALLE}.configuration_dalle", _config("DalleTransformerConfig")),
    ("transformers.models.auto.configuration_auto", f"{VQVAE}.configuration_vqvae", _config("VQVAEConfig")),
    ("transformers.models.auto.configuration_auto", f"{VQVAE2}.configuration_vqvae2", _config("VQVAE2Config")),
    (
        "transformers.models.auto.configuration_auto",
        f"{AUDIO_VQVAE}.configuration_audio_vqvae",
        _config("AudioVQVAEConfig"),
    ),
    (
        "transformers.models.auto.configuration_auto",
        f"{DALLE_PYTORCH}.configuration_dalle_pytorch",
        _config("DallePytorchTransformerConfig"),
    ),
    (
        "transformers.models.auto.configuration_auto",
        f"{DALLE_PYTORCH_VAE}.configuration_dalle_pytorch_vae",
        _config("DallePytorchVAEConfig"),
    ),
    ("transformers.models.auto.configuration_auto", f"{VQGAN}.configuration_vqgan", _config("VQGANConfig")),
    ("transformers.models.auto.configuration_auto", f"{PIXELCNN}.configuration_pixelcnn", _config("PixelCNNConfig")),
    ("transformers.models.auto.configuration_auto", f"{WAVENET}.configuration_wavenet", _config("WaveNetConfig")),
    (
        "transformers.models.auto.configuration_auto",
        f"{PIPELINES}.configuration_pipeline",
        _config("DallePipelineConfig"),
    ),
    ("transformers.models.auto.modeling_auto", f"{DVAE}.modeling_dvae", _model("DiscreteVAE")),
    ("transformers.models.auto.modeling_auto", f"{DALLE}.modeling_dalle", _model("DalleTransformer")),
    ("transformers.models.auto.modeling_auto", f"{VQVAE}.modeling_vqvae", _model("VQVAE")),
    ("transformers.models.auto.modeling_auto", f"{VQVAE2}.modeling_vqvae2", _model("VQVAE2")),
    ("transformers.models.auto.modeling_auto", f"{AUDIO_VQVAE}.modeling_audio_vqvae", _model("AudioVQVAE")),
    (
        "transformers.models.auto.modeling_auto",
        f"{DALLE_PYTORCH}.modeling_dalle_pytorch",
        _model("DallePytorchTransformer"),
    ),
    (
        "transformers.models.auto.modeling_auto",
        f"{DALLE_PYTORCH_VAE}.modeling_dalle_pytorch_vae",
        _model("DallePytorchVAE"),
    ),
    ("transformers.models.auto.modeling_auto", f"{VQGAN}.modeling_vqgan", _model("VQGAN")),
    ("transformers.models.auto.modeling_auto", f"{PIXELCNN}.modeling_pixelcnn", _model("PixelCNN")),
    ("transformers.models.auto.modeling_auto", f"{WAVENET}.modeling_wavenet", _model("WaveNet")),
    ("transformers.models.auto.image_processing_auto", f"{DVAE}.image_processing_dvae", _image_processor),
    ("transformers.pipelines", f"{PIPELINES}.text_to_image", _task),
    ("diffusers.pipelines.pipeline_loading_utils", "mosaics", _library),
    ("diffusers.pipelines.pipeline_utils", f"{PIPELINES}.dalle", _diffusion_pipeline("DallePipeline")),
    ("diffusers.pipelines.pipeline_utils", f"{PIPELINES}.vqvae", _diffusion_pipeline("VQVAEPipeline")),
    ("diffusers.pipelines.pipeline_utils", f"{PIPELINES}.audio_vqvae", _diffusion_pipeline("AudioVQVAEPipeline")),
    ("diffusers.pipelines.auto_pipeline", f"{PIPELINES}.dalle", _auto_pipeline),
)


def _when_both_imported(theirs: str, ours: str, action: Callable[[ModuleType, ModuleType], None]) -> None:
    """Runs `action` once both modules are complete. Theirs brings ours in; ours does not bring theirs in."""
    complete = set() if ours != "mosaics" else {ours}

    def join() -> None:
        if {theirs, ours} <= complete:
            action(sys.modules[theirs], sys.modules[ours])

    def their_import(module: ModuleType) -> None:
        complete.add(theirs)
        if ours in sys.modules:
            join()  # or ours is half-way through its own import, and joins at its end
        elif half_imported := next((name for name in _finder.loading if _is_part_of_a_model(name)), None):
            # Ours may need what that module does not have yet.
            _finder.waiting.setdefault(half_imported, []).append(lambda module: importlib.import_module(ours))
        else:
            importlib.import_module(ours)

    def our_import(module: ModuleType) -> None:
        complete.add(ours)
        join()

    if ours != "mosaics":
        _when_imported(ours, our_import)
    _when_imported(theirs, their_import)


def _is_part_of_a_model(module_name: str) -> bool:
    return module_name == MODELING_LAYERS or module_name.startswith("mosaics.models.")


def _when_imported(module_name: str, action: Callable[[ModuleType], Any]) -> None:
    if module_name in sys.modules and module_name not in _finder.waiting:
        action(sys.modules[module_name])
    else:
        _finder.waiting.setdefault(module_name, []).append(action)


class _ActionLoader(Loader):
    """Loads a module with its own loader, then runs the actions that waited for it."""

    def __init__(self, loader: Loader, finder: "_ActionFinder"):
        self.loader = loader
        self.finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader  # the module never sees the detour
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.finder.loading.append(module.__name__)
        try:
            self.loader.exec_module(module)
        finally:
            self.finder.loading.pop()
        for action in self.finder.waiting.pop(module.__name__, ()):
            action(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


class _ActionFinder(MetaPathFinder):
    """Hands modules that an action waits for, or may wait for, to an [`_ActionLoader`]; others go their usual way."""

    def __init__(self):
        self.waiting: dict[str, list[Callable[[ModuleType], Any]]] = {}
        self.loading: list[str] = []  # of these modules the half-imported ones, the outermost first
        self.searching: set[str] = set()

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if not (fullname in self.waiting or _is_part_of_a_model(fullname)) or fullname in self.searching:
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
