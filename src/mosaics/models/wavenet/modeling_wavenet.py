r"""WaveNet over sequences of codes: the prior of VQ-VAE for audio.

*WaveNet: A Generative Model for Raw Audio*, van den Oord et al. 2016 (https://arxiv.org/abs/1609.03499), with codes in
place of samples of sound, as in *Neural Discrete Representation Learning* (https://arxiv.org/abs/1711.00937):

    p(z) = prod_t p(z_t | z_1, ..., z_(t-1), class, slower sequence)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from mosaics.layers import CodeEmbedding
from mosaics.layers.initialization import init_fan_in_, is_linear
from mosaics.models.pretrained import MosaicsPreTrainedModel
from mosaics.models.sampling_request import (
    SamplingRequest,
    SamplingStep,
    check_class_labels,
    check_codes,
    check_count,
    checked_class_labels,
)
from mosaics.models.wavenet.configuration_wavenet import WaveNetConfig
from mosaics.models.wavenet.decoding import decode
from mosaics.models.wavenet.dilated_layer import DilatedLayer, LocalConditioning
from mosaics.outputs import always_set


@dataclass
class WaveNetOutput(ModelOutput):
    """Output of [`WaveNet`].

    Attributes:
        loss: Mean cross-entropy of the codes, in nats per code, a scalar.
        logits: (B, K, T); `[:, :, t]` predicts the code t from the codes before it.
    """

    loss: torch.Tensor = always_set()
    logits: torch.Tensor = always_set()


class WaveNet(MosaicsPreTrainedModel):
    r"""WaveNet: p(codes | class, slower sequence), trained with `forward` and sampled with `generate`.

    Example:
    ```python
    >>> import torch
    >>> from mosaics.models.wavenet import WaveNet, WaveNetConfig

    >>> config = WaveNetConfig(num_embeddings=16, hidden_size=32, skip_size=32, num_stacks=1, layers_per_stack=4)
    >>> model = WaveNet(config).eval()
    >>> codes = model.generate(num_samples=2, length=20, seed=0)
    >>> codes.shape
    torch.Size([2, 20])
    >>> model(codes).logits.shape
    torch.Size([2, 16, 20])

    ```
    """

    config: WaveNetConfig
    config_class = WaveNetConfig
    base_model_prefix = "wavenet"
    main_input_name = "indices"
    supports_gradient_checkpointing = True
    _no_split_modules = ["DilatedLayer"]  # noqa: RUF012 (the form transformers expects)

    __call__: Callable[..., WaveNetOutput]  # what `nn.Module` makes of `forward`

    def __init__(self, config: WaveNetConfig):
        super().__init__(config)
        self.embedding: nn.Module = CodeEmbedding(config.num_embeddings, config.hidden_size)
        self.conditioning = None
        if config.condition_num_embeddings is not None and config.condition_factor is not None:
            self.conditioning = LocalConditioning(
                config.hidden_size, config.condition_num_embeddings, config.condition_factor
            )
        last = len(config.dilations) - 1
        self.layers = nn.ModuleList(
            [DilatedLayer(config, dilation, index == last) for index, dilation in enumerate(config.dilations)]
        )
        self.output_layer = nn.Conv1d(config.skip_size, config.skip_size, 1)
        self.head = nn.Conv1d(config.skip_size, config.num_embeddings, 1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CodeEmbedding):
            init.normal_(module.weight, mean=0.0, std=1.0)
        elif is_linear(module) and module is not self.head:
            init_fan_in_(module)

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
        conditions: torch.Tensor | None = None,
    ) -> WaveNetOutput:
        r"""The loss of a batch of sequences, all positions at once.

        Args:
            indices: Codes (B, T).
            class_labels: (B,), if the model has classes.
            conditions: The slower sequence (B, T / config.condition_factor), if the model has one.

        Returns:
            [`WaveNetOutput`].
        """
        if indices.dim() != 2 or 0 in indices.shape:
            raise ValueError(f"indices must be of shape (batch, length), got {tuple(indices.shape)}.")
        check_codes("indices", indices, self.config.num_embeddings)
        check_class_labels(class_labels, self.config.num_classes, len(indices))
        self._check_conditions(conditions, indices.shape[1])
        if conditions is not None and len(conditions) != len(indices):
            raise ValueError(f"conditions must have {len(indices)} sequences as indices, got {len(conditions)}.")

        condition = None if self.conditioning is None else self.conditioning(conditions)
        # What predicts code t is the code before it; before the first there is nothing: zeros, as in all convolutions.
        features = F.pad(self.embedding(indices[:, :-1]), (0, 0, 1, 0)).transpose(1, 2)  # (B, hidden_size, T)
        skips = features.new_zeros(())
        for layer in self.layers:
            features, skip = layer(features, class_labels, condition)
            skips = skips + skip
        logits = self.head(F.relu(self.output_layer(F.relu(skips))))
        return WaveNetOutput(loss=F.cross_entropy(logits.float(), indices.long()), logits=logits)

    @torch.no_grad()
    def generate(
        self,
        num_samples: int | None = None,
        length: int | None = None,
        *,
        class_labels: torch.Tensor | int | None = None,
        conditions: torch.Tensor | None = None,
        uniforms: torch.Tensor | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        prefix_indices: torch.Tensor | None = None,
        batch_size: int | None = None,
        callback: Callable[[SamplingStep], None] | None = None,
    ) -> torch.Tensor:
        r"""Samples sequences, code by code. Caches make a step cost one position: it equals uncached sampling.

        Sample i is a pure function of the weights, its class and slower sequence, the sampling arguments and its own
        row of uniforms, so that it is the same in any batch.

        Args:
            num_samples: Samples N; as many as there are class labels, slower sequences, prefixes or uniforms, or 1, if
                not given.
            length: Codes T of a sequence; follows from the slower sequence if the model has one.
            class_labels: (N,), or one for all, if the model has classes.
            conditions: The slower sequence, (N, T / config.condition_factor) or (1, ...), if the model has one.
            uniforms: The random numbers in [0, 1): (N, T). Drawn from `seed` by
                [`~mosaics.sampling.candidate_uniforms`], row i for prompt 0 and candidate i, if not given.
            seed: Seed of the uniforms; drawn from torch's global generator if neither is given.
            temperature: Divides the logits; 0 takes the most likely code.
            top_k: Draw from the `top_k` most likely codes only.
            top_p: Draw from the smallest set of most likely codes that holds this probability, in (0, 1].
            prefix_indices: The first codes of the sequences, to be continued: (n,) for all or (N, n).
            batch_size: Samples computed at a time; if not given, as many as keep the caches within 512 MiB on the CPU
                and 4 GiB elsewhere. Bounds the memory, not the result.
            callback: Called after each code with a [`~mosaics.models.sampling_request.SamplingStep`].

        Returns:
            Codes (N, T), int64.
        """
        # Ranges are read on the CPU only: there they can be without waiting for a device in `forward`.
        class_labels = checked_class_labels(class_labels, self.config.num_classes)
        conditions = None if conditions is None else conditions.cpu()
        if length is not None:
            check_count("length", length)
        length = self._check_conditions(conditions, length)
        if length is None:
            raise ValueError("length is missing: how many codes a sequence shall have.")
        request = SamplingRequest(
            shape=(length,),
            num_embeddings=self.config.num_embeddings,
            num_samples=num_samples,
            class_labels=class_labels,
            conditions=() if conditions is None else (conditions,),
            prefix_indices=prefix_indices,
            uniforms=uniforms,
            seed=seed,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            batch_size=batch_size,
        )
        return decode(self, request, callback)

    def _check_conditions(self, conditions: torch.Tensor | None, length: int | None) -> int | None:
        """Raises if the slower sequence is not what the config says and `length` needs; returns the length."""
        factor, num_embeddings = self.config.condition_factor, self.config.condition_num_embeddings
        if factor is None or num_embeddings is None:
            if conditions is not None:
                raise ValueError("conditions were given to a model without any (config.condition_factor is None).")
            return length
        if conditions is None:
            raise ValueError(f"conditions are missing: one code for every {factor} (config.condition_factor).")
        if conditions.dim() != 2 or not conditions.shape[1]:
            raise ValueError(f"conditions must be of shape (batch, length / {factor}), got {tuple(conditions.shape)}.")
        if length is not None and conditions.shape[1] * factor != length:
            raise ValueError(
                f"conditions has {conditions.shape[1]} codes, which belong to {conditions.shape[1] * factor} codes "
                f"(config.condition_factor={factor}), not to {length}."
            )
        check_codes("conditions", conditions, num_embeddings, "condition_num_embeddings")
        return conditions.shape[1] * factor
