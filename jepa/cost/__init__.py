"""What a run takes: parameters, FLOPs, memory and GPU hours, computed before it starts."""
