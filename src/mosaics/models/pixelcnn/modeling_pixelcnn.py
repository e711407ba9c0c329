r"""The gated PixelCNN over grids of codes: the prior of VQ-VAE, and of every level of VQ-VAE-2.

*Conditional Image Generation with PixelCNN Decoders*, van den Oord et al. 2016 (https://arxiv.org/abs/1606.05328),
with the attention and the conditioning stack of *Generating Diverse High-Fidelity Images with VQ-VAE-2*, Razavi et al.
2019 (https://arxiv.org/abs/1906.00446). Codes are predicted one after the other in raster order:

    p(z) = prod_i p(z_i | z_1, ..., z_(i-1), class, upper grids)

With several codes at a position, as in the CIFAR-10 set-up of *Neural Discrete Representation Learning*
(https://arxiv.org/abs/1711.00937), those of one position follow each other in this order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from mosaics.layers import CodeEmbedding, VerticalConv2d
from mosaics.layers.initialization import GATE_GAIN, init_fan_in_, is_linear
from mosaics.models.pixelcnn.conditioning import ConditioningStack, check_conditions
from mosaics.models.pixelcnn.configuration_pixelcnn import PixelCNNConfig
from mosaics.models.pixelcnn.decoding import decode
from mosaics.models.pixelcnn.gated_layer import GatedPixelLayer
from mosaics.models.pixelcnn.latents import EarlierLatents, LatentEmbedding
from mosaics.models.pretrained import MosaicsPreTrainedModel
from mosaics.models.sampling_request import (
    SamplingRequest,
    SamplingStep,
    check_class_labels,
    check_codes,
    checked_class_labels,
)
from mosaics.outputs import always_set


@dataclass
class PixelCNNOutput(ModelOutput):
    """Output of [`PixelCNN`].

    Attributes:
        loss: Mean cross-entropy of the codes, in nats per code, a scalar.
        logits: (B, K, h, w); `[:, :, i, j]` predicts the code (i, j) from the codes before it. (B, K, h, w, L) with
            L > 1 codes at each position.
    """

    loss: torch.Tensor = always_set()
    logits: torch.Tensor = always_set()


class PixelCNN(MosaicsPreTrainedModel):
    r"""The gated PixelCNN: p(codes | class, upper grids), trained with `forward` and sampled with `generate`.

    Example:
    ```python
    >>> import torch
    >>> from mosaics.models.pixelcnn import PixelCNN, PixelCNNConfig

    >>> config = PixelCNNConfig(num_embeddings=16, grid_height=6, grid_width=8, hidden_size=32, num_layers=3,
    ...     num_classes=2)
    >>> model = PixelCNN(config).eval()
    >>> codes = model.generate(class_labels=torch.tensor([0, 1]), seed=0)
    >>> codes.shape
    torch.Size([2, 6, 8])
    >>> model(codes, class_labels=torch.tensor([0, 1])).logits.shape
    torch.Size([2, 16, 6, 8])

    ```
    """

    config: PixelCNNConfig
    config_class = PixelCNNConfig
    base_model_prefix = "pixelcnn"
    main_input_name = "indices"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GatedPixelLayer"]  # noqa: RUF012 (the form transformers expects)

    __call__: Callable[..., PixelCNNOutput]  # what `nn.Module` makes of `forward`

    def __init__(self, config: PixelCNNConfig):
        super().__init__(config)
        width = config.hidden_size
        several = config.latents_per_position > 1
        self.embedding: nn.Module = LatentEmbedding(config) if several else CodeEmbedding(config.num_embeddings, width)
        self.conditioning = ConditioningStack(config) if config.upper_grids else None
        self.layers = nn.ModuleList([GatedPixelLayer(config, index) for index in range(config.num_layers)])
        self.earlier_latents = EarlierLatents(config) if several else None
        self.output_layers = nn.ModuleList([nn.Conv2d(width, width, 1) for _ in range(config.num_output_layers)])
        self.head = nn.Conv2d(width, config.num_embeddings, 1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CodeEmbedding):
            init.normal_(module.weight, mean=0.0, std=1.0)
        elif is_linear(module) and module is not self.head:
            # After the first layer the vertical stack has nothing but gates to read, and no residual connection.
            reads_gates = isinstance(module, VerticalConv2d) and module.mask_type == "B"
            init_fan_in_(module, gain=GATE_GAIN if reads_gates else 1.0)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of the codes."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the embedding of the codes."""
        self.embedding = value

    @can_return_tuple
    def forward(
        self,
        indices: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        conditions: Sequence[torch.Tensor] | None = None,
    ) -> PixelCNNOutput:
        r"""The loss of a batch of grids, all positions at once.

        Args:
            indices: Codes (B, h, w), or (B, h, w, L) with L > 1 codes at each position.
            class_labels: (B,), if the model has classes.
            conditions: The upper code grids (B, h / factor, w / factor), top first, if the model has a conditioning
                stack.

        Returns:
            [`PixelCNNOutput`].
        """
        latent_axes = self.config.latent_axes
        if indices.dim() != 3 + len(latent_axes) or indices.shape[3:] != latent_axes or 0 in indices.shape:
            expected = ", ".join(["batch", "rows", "columns", *map(str, latent_axes)])
            raise ValueError(f"indices must be of shape ({expected}), got {tuple(indices.shape)}.")
        check_codes("indices", indices, self.config.num_embeddings)
        check_class_labels(class_labels, self.config.num_classes, len(indices))
        grid_size = (indices.shape[1], indices.shape[2])
        check_conditions(self.config, conditions, grid_size)
        self._check_grid(grid_size)
        for level, codes in enumerate(conditions or ()):
            if len(codes) != len(indices):
                raise ValueError(f"conditions[{level}] must have {len(indices)} grids as indices, got {len(codes)}.")

        condition = None if self.conditioning is None else self.conditioning(conditions)
        vertical = horizontal = self.embedding(indices).movedim(-1, 1)  # (B, hidden_size, h, w)
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal, class_labels, condition)
        if self.earlier_latents is not None:
            horizontal = self.earlier_latents(horizontal, indices)  # (B, hidden_size, h, w L)
        for layer in self.output_layers:
            horizontal = horizontal + layer(F.relu(horizontal))
        logits = self.head(F.relu(horizontal)).unflatten(3, (-1, *latent_axes))
        return PixelCNNOutput(loss=F.cross_entropy(logits.float(), indices.long()), logits=logits)

    @torch.no_grad()
    def generate(
        self,
        num_samples: int | None = None,
        *,
        class_labels: torch.Tensor | int | None = None,
        conditions: Sequence[torch.Tensor] | None = None,
        grid_size: tuple[int, int] | None = None,
        uniforms: torch.Tensor | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        prefix_indices: torch.Tensor | None = None,
        batch_size: int | None = None,
        callback: Callable[[SamplingStep], None] | None = None,
    ) -> torch.Tensor:
        r"""Samples grids, code by code. Caches make a step cost one position: it equals uncached sampling.

        Sample i is a pure function of the weights, its class and upper grids, the sampling arguments and its own row
        of uniforms, so that it is the same in any batch.

        Args:
            num_samples: Samples N; as many as there are class labels, upper grids, prefixes or uniforms, or 1, if not
                given.
            class_labels: (N,), or one for all, if the model has classes.
            conditions: The upper code grids, each (N, h / factor, w / factor) or (1, ...), top first, if the model has
                a conditioning stack.
            grid_size: Rows and columns (h, w); what the upper grids or else the config say if not given.
            uniforms: The random numbers in [0, 1): (N, h * w * L). Drawn from `seed` by
                [`~mosaics.sampling.candidate_uniforms`], row i for prompt 0 and candidate i, if not given.
            seed: Seed of the uniforms; drawn from torch's global generator if neither is given.
            temperature: Divides the logits; 0 takes the most likely code.
            top_k: Draw from the `top_k` most likely codes only.
            top_p: Draw from the smallest set of most likely codes that holds this probability, in (0, 1].
            prefix_indices: The first rows of the grids, to be completed: (rows, w) for all or (N, rows, w), with
                one more axis for L > 1 codes at each position.
            batch_size: Samples computed at a time; if not given, as many as keep the caches within 512 MiB on the CPU
                and 4 GiB elsewhere. Bounds the memory, not the result.
            callback: Called after each code with a [`~mosaics.models.sampling_request.SamplingStep`].

        Returns:
            Codes (N, h, w), or (N, h, w, L) with L > 1 codes at each position, int64.
        """
        # Ranges are read on the CPU only: there they can be without waiting for a device in `forward`.
        class_labels = checked_class_labels(class_labels, self.config.num_classes)
        if isinstance(conditions, tuple | list):
            conditions = tuple(codes.cpu() for codes in conditions)
        grid_size = check_conditions(self.config, conditions, None if grid_size is None else tuple(grid_size))
        grid_size = self._check_grid(grid_size or self.config.grid_size)
        request = SamplingRequest(
            shape=grid_size + self.config.latent_axes,
            num_embeddings=self.config.num_embeddings,
            num_samples=num_samples,
            class_labels=class_labels,
            conditions=tuple(conditions or ()),
            prefix_indices=prefix_indices,
            uniforms=uniforms,
            seed=seed,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            batch_size=batch_size,
        )
        return decode(self, request, callback)

    def _check_grid(self, grid_size: tuple[int, int]) -> tuple[int, int]:
        if len(grid_size) != 2 or any(isinstance(side, bool) or not isinstance(side, int) for side in grid_size):
            raise ValueError(f"grid_size must be two integers (rows, columns), got {grid_size}.")
        if min(grid_size) < 1:
            raise ValueError(f"grid_size must be at least 1 x 1, got {grid_size[0]} x {grid_size[1]}.")
        if self.config.num_attention_layers and grid_size != self.config.grid_size:
            raise ValueError(
                f"Attention fixes the grid: expected {self.config.grid_height} x {self.config.grid_width} codes "
                f"(config.grid_height and grid_width), got {grid_size[0]} x {grid_size[1]}."
            )
        return grid_size
