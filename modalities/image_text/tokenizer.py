"""Tokenizers of captions, as open_clip chooses them for an architecture."""

from dataclasses import dataclass, field
from typing import Any

from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor

from modalities.image_text.open_clip_files import CLIP_END, CONFIG_FILE, LOCAL, TowerSizes


@dataclass
class CaptionTokenizer:
    """Captions -> token ids of equal length; picklable, and loaded on its first call.

    length: ids per caption; source: a name on Hugging Face or a folder, None for CLIP's own tokenizer, which needs no
    files; end: the id of the end token, None if unknown.
    """

    length: int
    end: int | None
    source: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    _loaded: Any = field(default=None, repr=False, compare=False)

    def __call__(self, texts: list[str]) -> Tensor:
        """Strings -> int64 [n, length], truncated before the end token, or padded.

        Raises ValueError if the files of the tokenizer are missing.
        """
        self.load()
        ids: Tensor = self._loaded(texts)
        return ids

    def load(self) -> None:
        """Load the tokenizer; raises ValueError if its files are missing."""
        if self._loaded is None:
            self._loaded = self._load()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def _load(self) -> Any:
        if self.source is None:
            return SimpleTokenizer(context_length=self.length, **self.options)
        try:
            return HFTokenizer(self.source, context_length=self.length, local_files_only=True, **self.options)
        except Exception:  # not on this machine; transformers raises various types
            return self._download(self.source)

    def _download(self, source: str) -> Any:
        try:
            return HFTokenizer(source, context_length=self.length, **self.options)
        except Exception as error:
            raise ValueError(
                f"the tokenizer '{source}' is not on this machine and could not be downloaded; download it "
                "elsewhere (`transformers.AutoTokenizer.from_pretrained`), or put its files into a folder with "
                f"{CONFIG_FILE} and give '{LOCAL}PATH': {type(error).__name__}"
            ) from error


def caption_tokenizer(architecture: str | TowerSizes, config: dict[str, Any]) -> CaptionTokenizer:
    """The tokenizer that an architecture expects."""
    text = config["text_cfg"]
    length, source = text.get("context_length", 77), text.get("hf_tokenizer_name") or None
    options = dict(text.get("tokenizer_kwargs") or {})
    if source is None:
        return CaptionTokenizer(length, CLIP_END, options=options)
    if text.get("tokenizer_mode"):
        options["tokenizer_mode"] = text["tokenizer_mode"]
    end = text.get("eos_id", 2) if text.get("pool_type") == "eos" else 1 if "siglip" in source.lower() else None
    if str(architecture).startswith(LOCAL):
        source = str(architecture).removeprefix(LOCAL)
    return CaptionTokenizer(length, end, source, options)
