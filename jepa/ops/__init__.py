"""Arithmetic of the networks: plain functions of tensors."""
