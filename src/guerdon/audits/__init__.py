"""Attacks on a reward, a judge or a verifier, and how often each of them works."""
