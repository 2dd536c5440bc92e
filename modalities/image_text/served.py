"""The user-facing model of a run: images and sentences in, vectors and scores out."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import torch
from PIL import Image as PillowImage, ImageOps
from torch import Tensor, nn
from torch.utils.data import default_collate

from jepa.evaluate.cross_modal.vectors import Similarity, StreamEncoder, joint_embedding
from modalities.image_text.encoder import View
from modalities.storage.images import decode_image, image_tensor
from modalities.storage.pixels import AS_STORED, PixelSettings

Picture = Path | str | PillowImage.Image | Tensor
_BATCH = 64


class PairViews(Protocol):
    """What the model needs from its modality, beside what evaluation needs."""

    @property
    def stored_side(self) -> int:
        """Pixels needed on the shorter side of a stored image."""
        ...

    def view(self, image: Tensor, caption: str) -> View:
        """uint8 [3, H', W'] and a caption -> input of the towers."""
        ...

    def sentence_view(self, sentence: str) -> View:
        """A sentence, which is cleaned like a caption -> input of the towers."""
        ...


class ImageTextModel(nn.Module):
    """Vectors of images and of sentences; their inner products say how well they match.

    If the run had a contrast, they are the towers' vectors, of width D. Otherwise each is the summary of its own stream
    beside the predictor's prediction of the other stream, of width 2 D; an inner product is the mean of both cosines.
    """

    def __init__(
        self,
        modality: PairViews,
        matcher: StreamEncoder,
        encoder: Literal["target_encoder", "context_encoder"],
        pixels: PixelSettings = AS_STORED,
    ) -> None:
        super().__init__()
        self.modality, self.matcher, self.networks, self.encoder = modality, matcher, matcher.model, encoder
        self.pixels: PixelSettings = pixels
        self.way: Similarity = "predicted" if matcher.model.config.contrast == "none" else "direct"

    def encode_image(self, pictures: Sequence[Picture]) -> Tensor:
        """Paths, Pillow images or uint8 tensors [3, H, W] -> unit vectors [n, D or 2 D].

        Raises BadSampleError for an image that cannot be read, ValueError for anything but a list of images.
        """
        if isinstance(pictures, str | Path | PillowImage.Image):
            raise ValueError(f"encode_image takes a list of pictures, not {pictures!r:.80} alone")
        return self._encode((self.modality.view(self._decoded(picture), "") for picture in pictures), stream=0)

    def encode_text(self, sentences: Sequence[str]) -> Tensor:
        """Strings, cleaned like captions -> unit vectors [n, D or 2 D]; raises ValueError for anything but a list."""
        if isinstance(sentences, str):
            raise ValueError(f"encode_text takes a list of sentences, not {sentences!r:.80} alone")
        return self._encode(map(self.modality.sentence_view, sentences), stream=1)

    def score(self, pictures: Sequence[Picture], sentences: Sequence[str]) -> Tensor:
        """How well each image matches each sentence: [pictures, sentences], -1 to 1."""
        return self.encode_image(pictures) @ self.encode_text(sentences).T

    def forward(self, views: View) -> Tensor:
        """A batch of views -> all tokens [B, N, D]."""
        tokens: Tensor = getattr(self.networks, self.encoder)(views)
        return tokens

    def _encode(self, views: Iterable[View], stream: int) -> Tensor:
        remaining, parts = iter(views), []
        while batch := list(islice(remaining, _BATCH)):
            parts.append(joint_embedding(self.matcher.encode(default_collate(batch), stream), stream, self.way))
        if not parts:
            raise ValueError(f"nothing to encode: the list of {('pictures', 'sentences')[stream]} is empty")
        return torch.cat(parts)

    def _decoded(self, picture: Picture) -> Tensor:
        match picture:
            case Tensor():
                if picture.dtype != torch.uint8 or picture.ndim != 3 or len(picture) != 3:
                    kind = f"{str(picture.dtype).removeprefix('torch.')} {list(picture.shape)}"
                    raise ValueError(f"a picture given as a tensor must be uint8 [3, H, W], RGB, not {kind}")
                return picture
            case PillowImage.Image():
                return image_tensor(ImageOps.exif_transpose(picture), self.pixels)  # upright, like files
            case _:
                return decode_image(Path(picture), self.modality.stored_side, pixels=self.pixels)
