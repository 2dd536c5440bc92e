"""Clusters: profiles, jobs, their status, and sweeps of runs."""
