"""Tubelets: a few frames of a patch as one token."""

from torch import Tensor

from jepa.encoder import PatchEmbedding


class TubeletEmbedding(PatchEmbedding):
    """[B, 3, T, H, W] -> [B, N, dim], time after time and row by row; V-JEPA's strided 3-D convolution.

    change_scale: how many times larger than they are the differences of frames from the mean of their tubelet are made,
    before they are projected and where raw patches are predicted; 1 leaves tubelets as they are. Departs from V-JEPA:
    from one frame to the next most of what a patch holds stays, and small models, in few steps, learn what it holds and
    not what changes (docs/video.md).
    """

    def __init__(self, tubelet: int, patch_size: int, dim: int, change_scale: float) -> None:
        pattern = "b c (t u) (h p) (w q) -> b (t h w) (c u p q)"
        sizes = {"u": tubelet, "p": patch_size, "q": patch_size}
        super().__init__(pattern, 3 * tubelet * patch_size**2, dim, sizes)
        self.tubelet, self.change_scale = tubelet, change_scale

    def patches(self, inputs: Tensor) -> Tensor:
        """Values of every tubelet: [B, 3, T, H, W] -> [B, N, values]."""
        if self.change_scale == 1:
            return super().patches(inputs)
        frames = inputs.unflatten(2, (-1, self.tubelet))  # [B, 3, T / u, u, H, W]
        mean = frames.mean(dim=3, keepdim=True)
        return super().patches((mean + self.change_scale * (frames - mean)).flatten(2, 3))
