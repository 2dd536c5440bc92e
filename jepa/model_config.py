"""The `model` section of a config: network sizes, and the encoder outputs that are targets."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from jepa.encoder import EncoderConfig, TransformerConfig
from jepa.ops.contrast import Contrast as Contrast
from jepa.ops.projector import ProjectorNorm
from jepa.predictor import PredictorConfig


@dataclass(frozen=True, kw_only=True)
class NetworksConfig(TransformerConfig, ABC):
    """Settings of every JEPA; subclasses add the size of the encoder, see `Modality.model_type`.

    target_layers: outputs of the target encoder that are predicted, each layer-normed. A number n means the last n (1:
    the last alone, as in I-JEPA; 0: all blocks); a list names them, 0 being the embedded input before the first block.
    target_join: predict their `mean` (data2vec, Baevski et al. 2022) or `each` separately (V-JEPA 2.1). target_input:
    the target encoder sees `all` tokens of a view, or in training the `predicted` ones alone (M2D, Niizumi et al.
    2023); evaluation encodes all. projector: widths of the layers between pooled context and regulariser, which keep
    the regulariser from removing what a linear probe uses (the expander of VICReg, Bardes et al. 2022); a number w
    means [w, w], 0 none. Each stream has its own projector. projector_norm: between its layers, `layer` norm, or the
    `batch` norm of VICReg and LeJEPA, over the views and samples of all processes.
    """

    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    target_layers: NonNegativeInt | tuple[NonNegativeInt, ...] = 1
    target_join: Literal["mean", "each"] = "mean"
    target_input: Literal["all", "predicted"] = "all"
    projector: NonNegativeInt | tuple[PositiveInt, ...] = 0
    projector_norm: ProjectorNorm = "layer"

    def __post_init__(self) -> None:
        depth, chosen = self.depth, self.target_layers
        if chosen == () or max(chosen if isinstance(chosen, tuple) else (chosen,)) > depth:
            raise ValueError(f"target_layers: {chosen} is out of range; an encoder of {depth} blocks has 0 to {depth}")

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of encoder outputs that can be targets, without the embedded input."""

    @property
    def contrast(self) -> Contrast:
        """Contrastive loss between matching streams, in addition to prediction."""
        return "none"

    @property
    def target_outputs(self) -> tuple[int, ...]:
        """The encoder outputs that are predicted, numbered as in `target_layers`."""
        chosen = self.target_layers
        return tuple(range(1, self.depth + 1))[-chosen:] if isinstance(chosen, int) else chosen

    @property
    def last_predicted(self) -> int:
        """Where the deepest of the `target_outputs` stands among the L layers of a prediction."""
        return self.target_outputs.index(max(self.target_outputs)) if self.target_join == "each" else 0


@dataclass(frozen=True, kw_only=True)
class ModelConfig(NetworksConfig, EncoderConfig):
    """Networks with a vision transformer as encoder; see EncoderConfig and PredictorConfig."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels and (sorted(set(self.levels)) != [*self.levels] or self.levels[-1] != self.depth):
            raise ValueError(f"levels: {self.levels}, but they must rise, and end with the last block, {self.depth}")

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return self.vit.depth
