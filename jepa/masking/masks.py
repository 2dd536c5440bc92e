"""Context and target tokens of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

_TENSORS = ("context", "target", "valid_context", "valid_target")


@dataclass(frozen=True, eq=False)
class Masks:
    """Context and target tokens of every sample: indices (int64), ascending within each set.

    parts: number of context tokens in each group that an encoder of several streams defines, the same for every sample.
    draw: sets with equal `draw` keep the same tokens of every stream they share, so that an encoder may reuse a pass.
    counts: of masks with different numbers of tokens, (context tokens, target tokens) of each of several equal parts of
    the batch. Shorter ones are filled up with index 0; `split` cuts this off.
    valid_context, valid_target: which of the tokens exist, if samples may lack some (padding); None for all. number:
    index of this set within its step; it selects the predictor's mask token. `bind` sets the last three.
    """

    context: Tensor  # [B, Kc]
    target: Tensor  # [B, M, Kt]
    parts: tuple[int, ...] = ()
    draw: int | None = None
    valid_context: Tensor | None = field(default=None, kw_only=True)  # bool [B, Kc]
    valid_target: Tensor | None = field(default=None, kw_only=True)  # bool [B, M, Kt]
    number: int = field(default=0, kw_only=True)
    counts: tuple[tuple[int, int], ...] = field(default=(), kw_only=True)

    @classmethod
    def of_context(cls, context: Tensor, parts: tuple[int, ...] = (), valid: Tensor | None = None) -> Self:
        """Masks without targets, to encode the tokens `context` [B, K] alone. valid: bool [B, K]."""
        return cls(context, context.new_empty(len(context), 0, 0), parts, valid_context=valid)

    def of_targets(self) -> Self:
        """Masks without targets, to encode the targets of one block alone."""
        return self.of_context(self.target.flatten(1))

    @classmethod
    def of_everything(cls, valid: Tensor) -> Self:
        """Masks without targets whose context is all tokens, of which `valid`, bool [B, N], exist."""
        every = torch.arange(valid.shape[1], device=valid.device).expand(valid.shape)
        return cls.of_context(every, valid=valid)

    def __len__(self) -> int:
        return len(self.context)

    def __getitem__(self, samples: slice | list[int]) -> Self:
        """The masks of some samples, e.g. one process's share of a batch."""
        return self._map(lambda tensor: tensor[samples])

    def bind(self, valid: Tensor | None, number: int = 0) -> Self:
        """Set which tokens are valid (bool [B, N], None for all) and the number of this set within its step."""
        if valid is None:
            return replace(self, valid_context=None, valid_target=None, number=number)
        context = valid.gather(1, self.context)
        target = valid.gather(1, self.target.flatten(1)).view(self.target.shape)
        return replace(self, valid_context=context, valid_target=target, number=number)

    def one_block_each(self) -> Self:
        """Make every target block a separate sample with the whole context: M blocks of B samples -> B * M samples."""
        blocks, valid_context, valid_target = self.target.shape[1], self.valid_context, self.valid_target
        return replace(
            self,
            context=self.context.repeat_interleave(blocks, dim=0),
            target=self.target.flatten(0, 1).unsqueeze(1),
            valid_context=None if valid_context is None else valid_context.repeat_interleave(blocks, dim=0),
            valid_target=None if valid_target is None else valid_target.flatten(0, 1).unsqueeze(1),
        )

    @staticmethod
    def concatenate(sets: Sequence["Masks"]) -> "Masks":
        """Sets of one shape as the masks of one larger batch: n times [B, ...] -> [n * B, ...]."""
        known = [name for name in _TENSORS if getattr(sets[0], name) is not None]
        joined: dict[str, Any] = {name: torch.cat([getattr(one, name) for one in sets]) for name in known}
        return replace(sets[0], **joined)

    @staticmethod
    def filled_up(parts: Sequence["Masks"]) -> "Masks":
        """Sets of equally many samples as the masks of one batch, which `split` divides again."""
        counts = tuple((part.context.shape[1], part.target.shape[2]) for part in parts)
        longest = [max(lengths) for lengths in zip(*counts, strict=True)]

        def joined(tensors: Sequence[Tensor], length: int) -> Tensor:
            return torch.cat([F.pad(tensor, (0, length - tensor.shape[-1])) for tensor in tensors])

        context = joined([part.context for part in parts], longest[0])
        target = joined([part.target for part in parts], longest[1])
        return replace(parts[0], context=context, target=target, counts=counts)

    def split(self, count: int) -> list[Self]:
        """Divide into `count` equal parts, in order; `count` is a multiple of that of `counts`."""
        size, repeat = len(self) // count, count // max(1, len(self.counts))
        parts = [self[part * size : (part + 1) * size] for part in range(count)]
        if not self.counts:
            return parts
        lengths = [one for one in self.counts for _ in range(repeat)]
        return [
            replace(part, context=part.context[:, :kept], target=part.target[..., :hidden], counts=())
            for part, (kept, hidden) in zip(parts, lengths, strict=True)
        ]

    def mean_counts(self) -> tuple[float, float]:
        """Context tokens and target tokens of a sample, on average."""
        counts = self.counts or ((self.context.shape[1], self.target.shape[2]),)
        context, target = (sum(lengths) / len(lengths) for lengths in zip(*counts, strict=True))
        return context, target * self.target.shape[1]

    def to(self, device: torch.device | str) -> Self:
        """The same masks on a device; the copy from pinned memory is asynchronous."""
        pinned = self.context.is_pinned()
        return self._map(lambda tensor: tensor.to(device, non_blocking=pinned))

    def pin_memory(self) -> Self:
        """The same masks in pinned memory; a DataLoader calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        known = [name for name in _TENSORS if getattr(self, name) is not None]
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in known}
        return replace(self, **changed)
