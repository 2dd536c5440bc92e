"""Probes on frozen features: linear, attentive and custom ones."""
