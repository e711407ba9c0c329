"""The quantizer of the VQ-VAE-2, its codebook a moving average of the encoder's vectors."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from mosaics.quantizers.collectives import broadcast_, gather_vectors, spread_choice, sum_over_processes_
from mosaics.quantizers.gradient_estimators import find_estimator
from mosaics.quantizers.kmeans import kmeans
from mosaics.quantizers.nearest import nearest_codes
from mosaics.quantizers.output import QuantizerOutput, check_codebook_size, from_vectors, indices_like, to_vectors
from mosaics.quantizers.squared_distance import mean_squared_distance
from mosaics.quantizers.usage import code_statistics

KMEANS_VECTORS_PER_CODE = 8


class EMAVectorQuantizer(nn.Module):
    r"""Replaces each feature vector by its nearest codebook entry; the codes follow the vectors that choose them.

    Implements Appendix A.1 of *Neural Discrete Representation Learning* (https://arxiv.org/abs/1711.00937), as used in
    *Generating Diverse High-Fidelity Images with VQ-VAE-2* (https://arxiv.org/abs/1906.00446, Eq. 2). In training,
    each forward pass ends with

        N_i <- decay N_i + (1 - decay) n_i
        m_i <- decay m_i + (1 - decay) sum of the vectors whose nearest code is i
        e_i  = m_i / N_i^,    N_i^ = (N_i + epsilon) / (n + K epsilon) n,    n = sum of all N_i

    n_i counts the encoder's vectors in the cell of code i, in the batches of all processes together: the codebook
    after a step is that of one process with the whole batch. The smoothed N_i^ is used and not kept. Codes have no
    gradient, so `codebook_loss` is 0; the commitment loss stays.

    Beyond the paper: the codes start as k-means of the first batch; in step t = 0, 1, ... the decay is at most
    (1 + t) / (decay_warmup + t), so that they keep up with an encoder that learns fast at first, and would otherwise
    leave all but a few behind; and a code that hardly any vector chooses any more restarts at a vector of the batch,
    with the weight of an average code. A batch with a vector that is NaN or infinite, on any process, changes nothing
    on any of them.

    Args:
        num_embeddings: Number of codes K.
        embedding_dim: Size D of one code. Must equal the channel count of the input.
        decay: Of the moving averages, in [0, 1). With 0, a step is one step of k-means.
        epsilon: Of the Laplace smoothing, at least 0.
        revival_threshold: Share of the mean N_i below which a code restarts, in [0, 1); 0 leaves dead codes alone.
        kmeans_iterations: Rounds of k-means at the start; 0 starts from random codes.
        decay_warmup: At least 1; 1 takes `decay` from the first step on.
        gradient_estimator: `"straight_through"` or `"rotation"`.

    Shape:
        - Input: `(B, D, ...)`, any number of trailing axes and any floating dtype; computed in float32.
        - Output: [`QuantizerOutput`] with `quantized` `(B, D, ...)` and `indices` `(B, ...)`, of the codes as they
          were before the step.

    Raises:
        ValueError: On another channel count, on training in half precision; when not training, on features that are
            NaN or infinite.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        revival_threshold: float = 0.05,
        kmeans_iterations: int = 10,
        decay_warmup: float = 10.0,
        gradient_estimator: str = "straight_through",
    ):
        super().__init__()
        check_codebook_size(num_embeddings, embedding_dim, type(self).__name__)
        for name, value in (("decay", decay), ("revival_threshold", revival_threshold)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}.")
        if epsilon < 0 or kmeans_iterations < 0:
            raise ValueError(
                f"epsilon and kmeans_iterations must not be negative, got {epsilon}, {kmeans_iterations}."
            )
        if decay_warmup < 1:
            raise ValueError(f"decay_warmup must be at least 1, got {decay_warmup}.")
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.decay = decay
        self.epsilon = epsilon
        self.revival_threshold = revival_threshold
        self.kmeans_iterations = kmeans_iterations
        self.decay_warmup = decay_warmup
        self._estimator = find_estimator(gradient_estimator)
        self.register_buffer("codebook", torch.empty(num_embeddings, embedding_dim))  # e
        self.register_buffer("cluster_size", torch.empty(num_embeddings))  # N
        self.register_buffer("sums", torch.empty(num_embeddings, embedding_dim))  # m
        self.register_buffer("num_updates", torch.empty((), dtype=torch.int64))
        self._has_started = False  # known to have; the buffer `num_updates` is what counts
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Codes uniform in [-1/K, 1/K], always the same ones, and no statistics."""
        table = torch.empty(self.codebook.shape, device="cpu")
        table.uniform_(-1 / self.num_embeddings, 1 / self.num_embeddings, generator=torch.Generator().manual_seed(0))
        init.copy_(self.codebook, table)
        for statistic in (self.cluster_size, self.sums, self.num_updates):
            init.zeros_(statistic)

    def forward(self, features: torch.Tensor) -> QuantizerOutput:
        """The nearest codes of `features` `(B, D, ...)`; in training, a step of the averages after it."""
        vectors = to_vectors(features.detach(), self.embedding_dim, type(self).__name__)  # (N, D)
        if self.training:
            self._start(vectors)
        indices = nearest_codes(vectors, self.codebook, allow_nonfinite=self.training)
        entries = from_vectors(F.embedding(indices, self.codebook).float(), features)
        perplexity, usage = code_statistics(indices, self.num_embeddings)
        if self.training:
            self._update(vectors, indices)
        return QuantizerOutput(
            quantized=self._estimator(features.float(), entries).to(features.dtype),
            indices=indices_like(indices, features),
            codebook_loss=entries.new_zeros(()),
            commitment_loss=mean_squared_distance(features, entries),
            perplexity=perplexity,
            codebook_usage=usage,
        )

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """The nearest codes `(B, ...)` of `features` `(B, D, ...)`, which must be finite."""
        vectors = to_vectors(features, self.embedding_dim, type(self).__name__)
        return indices_like(nearest_codes(vectors, self.codebook), features)

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:
        """Code vectors `(B, D, ...)` of `indices` `(B, ...)`."""
        return F.embedding(indices, self.codebook).movedim(-1, 1)

    @torch.no_grad()
    def _update(self, vectors: torch.Tensor, indices: torch.Tensor) -> None:
        """One step of the averages, the equations of the class."""
        codes, dim = self.sums.shape
        statistics = vectors.new_zeros(codes * (1 + 2 * dim))  # one buffer: one message between processes
        counts, sums, candidates = statistics.split([codes, codes * dim, codes * dim])
        sums, candidates = sums.view(codes, dim), candidates.view(codes, dim)
        counts.copy_(torch.bincount(indices, minlength=codes))
        sums.index_add_(0, indices, vectors)
        candidates.copy_(spread_choice(vectors, codes, self.num_updates * codes))
        sum_over_processes_(statistics)
        finite = torch.isfinite(sums.sum())  # one vector that is not finite makes its sum so, on every process alike

        decay = ((1 + self.num_updates) / (self.decay_warmup + self.num_updates)).clamp(max=self.decay)
        cluster_size = decay * self.cluster_size + (1 - decay) * counts
        sums.mul_(1 - decay).add_(decay * self.sums)
        total = cluster_size.sum()
        average = total / codes
        dead = cluster_size < self.revival_threshold * average
        cluster_size = torch.where(dead, average, cluster_size)
        sums = torch.where(dead[:, None], candidates.mul_(average), sums)
        smoothed = (cluster_size + self.epsilon) / (total + codes * self.epsilon) * total
        known = finite & (cluster_size > 0)  # a code that never had a vector stays where it is

        self.codebook.copy_(torch.where(known[:, None], sums / smoothed[:, None], self.codebook))
        self.cluster_size.copy_(torch.where(finite, cluster_size, self.cluster_size))
        self.sums.copy_(torch.where(finite, sums, self.sums))
        self.num_updates.add_(finite)

    @torch.no_grad()
    def start_at(self, centroids: torch.Tensor, counts: torch.Tensor) -> None:
        """Sets the codes to centroids `(K, D)` of as many vectors as `counts` `(K,)` says, for averages to go on from.

        The decay is then the full one: what was found from many vectors is not given up for the first batch.
        """
        counts = counts.to(self.sums)
        self.codebook.copy_(centroids)
        self.cluster_size.copy_(counts)
        self.sums.copy_(counts[:, None] * centroids.to(self.sums))
        self.num_updates.fill_(math.ceil(self.decay_warmup / (1 - self.decay)))

    @torch.no_grad()
    def _start(self, vectors: torch.Tensor) -> None:
        """Before the first step: codes as k-means of vectors of all processes, which process 0 computes."""
        if self.codebook.dtype != torch.float32:
            raise ValueError(
                f"EMAVectorQuantizer cannot train with statistics in {self.codebook.dtype}: small changes would be "
                "rounded away. Keep the model in float32 and use autocast (mixed_precision)."
            )
        if self._has_started or self.kmeans_iterations == 0:
            return
        self._has_started = bool(self.num_updates > 0)
        if self._has_started:
            return
        sample, total = gather_vectors(vectors, KMEANS_VECTORS_PER_CODE * self.num_embeddings)
        if not torch.isfinite(sample).all():
            return
        # With fewer vectors than codes, the other codes restart at vectors of later batches.
        clusters = min(self.num_embeddings, len(sample))
        generator = torch.Generator().manual_seed(0)
        centroids = broadcast_(kmeans(sample, clusters, self.kmeans_iterations, generator))
        counts = torch.bincount(nearest_codes(sample, centroids), minlength=clusters) * (total / len(sample))
        self.codebook[:clusters] = centroids
        self.cluster_size[:clusters] = broadcast_(counts)
        self.sums[:clusters] = counts[:, None] * centroids

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        self._has_started = False
        super()._load_from_state_dict(*args, **kwargs)
