"""The cost of a run, before it starts: parameters, FLOPs, memory and GPU hours."""
