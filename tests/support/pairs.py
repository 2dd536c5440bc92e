"""The smallest modality of two matching streams: cells of numbers, and one token that may determine most of them.

A sample is a hidden vector. The first stream is a grid of four cells: the first cell is noise, the others are fixed
linear maps of the hidden vector. The second stream is one more such map or, untied, noise.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from jepa.data import seeded
from jepa.encoder import TokenEncoder
from jepa.masking import Masks
from jepa.matching import MatchedModality
from jepa.modality import BadSampleError, DataConfig, Sample, Samples, Split, Stream, Task
from jepa.model_config import Contrast, NetworksConfig
from jepa.transformer import Block

CELLS, VALUES, DIM = 4, 6, 16
FIRST = Stream("cells", torch.tensor([0, 1, 2, 3, 5]), 5, (4, 0, 1, 0))
SECOND = Stream("<word>", torch.tensor([4, 6]), 6, (0, 1, 0, 1))
MAPS = torch.randn(CELLS + 1, VALUES, VALUES, generator=Generator().manual_seed(0)) / VALUES**0.5


class PairView(NamedTuple):
    first: Tensor  # [4, 6]
    second: Tensor  # [1, 6]


class Stored(NamedTuple):
    first: Tensor
    second: tuple[Tensor, ...]
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PairsConfig(DataConfig):
    """bad: samples of held-out splits whose views fail. learns: whether to train with and without the second stream."""

    samples: PositiveInt = 60
    tied: bool = True
    learns: bool = True
    bad: tuple[int, ...] = ()
    max_bad_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1


@dataclass(frozen=True, kw_only=True)
class PairsNetworks(NetworksConfig):
    contrast: Contrast = "none"

    @property
    def depth(self) -> int:
        return 1

    @property
    def target_outputs(self) -> tuple[int, ...]:
        return (0,)


class PairSamples:
    def __init__(self, config: PairsConfig, split: Split) -> None:
        self.config, self.split = config, split

    def __len__(self) -> int:
        return self.config.samples

    def __getitem__(self, index: int) -> Sample:
        generator = seeded("pairs", self.split, index)
        hidden, noise, other = torch.randn(3, VALUES, generator=generator).unbind()
        first = torch.stack([noise, *(MAPS[1:CELLS] @ hidden)])
        word = MAPS[CELLS] @ (hidden if self.config.tied else other)
        second = tuple((word + 0.05 * number).unsqueeze(0) for number in range(1 + index % 2))
        words = tuple(f"<b>{self.split} {index}</b> & {number}" for number in range(len(second)))
        if self.split != "train" and index in self.config.bad:
            return Sample(Stored(first, (), (f"{self.split}/{index}",)), {})
        return Sample(Stored(first, second, words), {"sign": int(hidden[0] > 0)})


class Pairs(MatchedModality[PairsConfig]):
    contract, config_type, model_type = 1, PairsConfig, PairsNetworks
    streams = (FIRST, SECOND)
    tasks = (Task(label="sign", kind="class", classes=("no", "yes")), Task(label="unlabelled", kind="class"))
    grid = (2, 2)

    @property
    def positions(self) -> Tensor:
        return torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [0, -1, -1], [1, -1, -1]]).float()

    def dataset(self, split: Split) -> Samples:
        return PairSamples(self.config, split)

    def encoder(self, config: Any) -> TokenEncoder:
        return TwoStreams()

    def sample_masks(self, batch_size: int, generator: Generator) -> list[Masks]:
        whole = [
            Masks(seen.tokens.expand(batch_size, -1), torch.full((batch_size, 1, 1), hidden.summary), seen.parts)
            for seen, hidden in ((FIRST, SECOND), (SECOND, FIRST))
        ]
        return [*hidden_cells(batch_size), *whole]

    def gain_masks(self, batch_size: int, generator: Generator) -> tuple[Masks, Masks] | None:
        return hidden_cells(batch_size) if self.config.learns else None

    def evaluation_view(self, inputs: Stored) -> PairView:
        return self.matches(inputs)[0]

    def matches(self, inputs: Stored) -> Sequence[PairView]:
        if not inputs.second:
            raise BadSampleError(inputs.words[0], "it has no second stream")
        return [PairView(inputs.first, second) for second in inputs.second]

    def near_misses(self, inputs: Stored) -> Mapping[str, tuple[PairView, PairView]]:
        true = self.matches(inputs)[0]
        return {"turned": (true, PairView(true.first, -true.second))} if len(inputs.second) == 2 else {}

    def prompts(self, task: Task) -> Iterator[Sequence[PairView]]:
        for sign in (-1, 1) if task.label == "sign" else ():
            hidden = torch.zeros(VALUES)
            hidden[0] = 2.0 * sign
            yield [PairView(torch.zeros(CELLS, VALUES), (MAPS[CELLS] @ hidden).unsqueeze(0))]

    def descriptions(self, inputs: Stored) -> Sequence[str]:
        return inputs.words

    def inference_model(self, model: nn.Module, encoder: Literal["target_encoder", "context_encoder"]) -> nn.Module:
        return nn.ModuleDict({encoder: model})

    def baselines(self, view: PairView) -> Mapping[str, Tensor]:
        return {"raw_input": view.first.flatten()}

    def picture(self, view: PairView) -> Tensor:
        grey = (view.first.mean(dim=1).view(2, 2) * 60 + 128).clamp(0, 255).byte()
        return grey.repeat_interleave(8, 0).repeat_interleave(8, 1).unsqueeze(-1).expand(-1, -1, 3).contiguous()


def hidden_cells(batch_size: int) -> tuple[Masks, Masks]:
    """Masks that hide all cells but the noise: with the second stream in the context, and without it."""
    target = torch.tensor([1, 2, 3]).expand(batch_size, 1, -1)
    with_it = Masks(torch.tensor([0, 4, 5, 6]).expand(batch_size, -1), target, (1, 1, 1, 1))
    return with_it, Masks(torch.tensor([0, 5]).expand(batch_size, -1), target, (1, 0, 1, 0))


class TwoStreams(TokenEncoder):
    """A block for each stream, over its own tokens; the summary token is a linear map of their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = DIM
        self.embed = nn.ModuleList(nn.Linear(VALUES, DIM) for _ in range(2))
        self.places = nn.Parameter(torch.randn(CELLS + 1, DIM))
        self.blocks = nn.ModuleList(Block(DIM, 2, 2.0) for _ in range(2))
        self.summaries = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(2))

    def outputs(self, inputs: PairView, masks: Masks | None = None) -> list[Tensor]:
        keep, parts = torch.arange(7).expand(len(inputs.first), -1), (4, 1, 1, 1)
        if masks is not None:
            keep, parts = masks.context, masks.parts
        of_first, of_second = keep[:, : parts[0]], keep[:, parts[0] : parts[0] + parts[1]] - CELLS
        kept = []
        for stream, (values, cells) in enumerate(((inputs.first, of_first), (inputs.second, of_second))):
            if not cells.shape[1]:
                kept.append((values.new_empty(len(values), 0, DIM), values.new_empty(len(values), 0, DIM)))
                continue
            rows = torch.arange(len(values)).unsqueeze(1)
            places = self.places[:CELLS] if stream == 0 else self.places[CELLS:]
            tokens = self.blocks[stream](self.embed[stream](values[rows, cells]) + places[cells])
            kept.append((tokens, self.summaries[stream](tokens.mean(dim=1, keepdim=True))))
        wholes = [whole for (_, whole), there in zip(kept, parts[2:], strict=True) if there]
        return [torch.cat([kept[0][0], kept[1][0], *wholes], dim=1)]

    def layers(self, inputs: PairView, masks: Masks | None = None) -> list[Tensor]:
        return self.outputs(inputs, masks)

    def pool(self, tokens: Tensor, masks: Masks | None = None) -> dict[str, Tensor]:
        *_, first, second = (masks.parts if masks is not None else ()) or (4, 1, 1, 1)
        pooled = {FIRST.name: tokens[:, -1 - second]} if first else {}
        return pooled | ({SECOND.name: tokens[:, -1]} if second else {})

    def fsdp_units(self) -> Iterator[nn.Module]:
        return self.blocks.children()
