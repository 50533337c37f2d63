"""Scalar reward models: a transformers backbone, a pooled state, a small head, one number for a conversation."""
