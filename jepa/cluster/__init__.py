"""Submit runs to a cluster, follow their jobs, and run sweeps."""
