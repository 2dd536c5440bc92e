"""Common GPUs, their memory and their speed."""

from dataclasses import dataclass

UTILISATION = 0.3  # share of peak FLOP/s; I-JEPA's ViT-H/14 reached 0.18 or more ("under 72 h" on 16 A100)
RESERVED = 2 << 30  # bytes for the CUDA context, NCCL, workspaces and fragmentation


@dataclass(frozen=True)
class Gpu:
    """memory: bytes available to a process. bf16, fp32: dense peak FLOP/s of the data sheet, fp32 without TF32."""

    name: str
    memory: int
    bf16: float
    fp32: float

    def hours(self, flops: float, bf16: bool) -> float:
        """GPU hours for a number of FLOPs; a multiply-add counts as two."""
        return flops / (self.bf16 if bf16 else self.fp32) / UTILISATION / 3600

    def holds(self, size: int) -> bool:
        return size + RESERVED <= self.memory


GPUS = (  # data sheets: A100 (2021), H100 SXM (2023), H200 SXM (2024); memory from torch.cuda.mem_get_info
    Gpu("A100 40 GB", int(39.4 * 2**30), 312e12, 19.5e12),
    Gpu("A100 80 GB", int(79.1 * 2**30), 312e12, 19.5e12),
    Gpu("H100 80 GB", int(79.1 * 2**30), 989e12, 67e12),
    Gpu("H200 141 GB", int(139.8 * 2**30), 989e12, 67e12),
)
