"""The `model` section of a config: sizes of the networks, and what is predicted of their outputs."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

from pydantic import NonNegativeInt

from jepa.encoder import EncoderConfig, TransformerConfig
from jepa.predictor import PredictorConfig

Contrast = Literal["none", "infonce", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class NetworksConfig(TransformerConfig, ABC):
    """What every JEPA has; how large its encoder is stands in a subclass, see `Modality.model_type`.

    target_layers: which outputs of the target encoder are predicted, each layer-normed: so many of the last (1 is the
    last alone, as in I-JEPA; 0 all blocks), or a list of them, in which 0 is the embedded input before the first block.
    target_join: their mean (data2vec, Baevski et al. 2022), or `each` of them by itself (V-JEPA 2.1). projector: width
    of the two layers between the pooled context and the regulariser, which then need not cost what a linear probe finds
    (as the expander of VICReg, Bardes et al. 2022); 0 for none; one for every stream of tokens.
    """

    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    target_layers: NonNegativeInt | tuple[NonNegativeInt, ...] = 1
    target_join: Literal["mean", "each"] = "mean"
    projector: NonNegativeInt = 0

    def __post_init__(self) -> None:
        depth, chosen = self.depth, self.target_layers
        if chosen == () or max(chosen if isinstance(chosen, tuple) else (chosen,)) > depth:
            raise ValueError(f"target_layers: an encoder of {depth} blocks has no {chosen}, only 0 to {depth}")

    @property
    @abstractmethod
    def depth(self) -> int:
        """Outputs of the encoder after its first one, that can be targets."""

    @property
    def contrast(self) -> Contrast:
        """How matching streams of a sample are told from others beside being predicted; `none` where there is one."""
        return "none"

    @property
    def target_outputs(self) -> tuple[int, ...]:
        """The outputs of the encoder that are predicted, as numbered in `target_layers`."""
        chosen = self.target_layers
        return tuple(range(1, self.depth + 1))[-chosen:] if isinstance(chosen, int) else chosen


@dataclass(frozen=True, kw_only=True)
class ModelConfig(NetworksConfig, EncoderConfig):
    """The networks of a modality whose encoder is a vision transformer; see EncoderConfig and PredictorConfig."""

    @property
    def depth(self) -> int:
        """Blocks of the encoder."""
        return self.vit.depth
