"""Detectors of generated images: small ones of several families, CLIP with SVD experts, a head on a frozen one."""
