"""Names of encoders of other families: `timm:NAME`, `timm:NAME@FILE`, `open_clip:NAME@TAG`, `timm:NAME@random`."""

from dataclasses import dataclass
from pathlib import Path

from jepa.checkpoint import CheckpointError

LIBRARIES = ("timm", "open_clip")
RANDOM = "random"  # instead of weights


@dataclass(frozen=True)
class FamilyName:
    """A model of a library, and its weights: a file, a tag of open_clip, `random`, or empty for the library's own."""

    library: str
    model: str
    weights: str

    def __str__(self) -> str:
        return f"{self.library}:{self.model}{'@' if self.weights else ''}{self.weights}"

    @property
    def is_random(self) -> bool:
        """Whether the user asks for random weights."""
        return self.weights == RANDOM

    @property
    def file(self) -> Path:
        """The file of weights; raises CheckpointError if there is none."""
        path = Path(self.weights).expanduser()
        if not path.exists():
            raise CheckpointError(f"{self}: no file {self.weights}; after @ stands a file of weights, or '{RANDOM}'")
        return path


def family_name(source: Path | str) -> FamilyName | None:
    """What a source names in another library; None if it is no such name."""
    library, colon, rest = str(source).partition(":")
    if not colon or library not in LIBRARIES:
        return None
    model, _, weights = rest.partition("@")
    return FamilyName(library, model, weights)
