"""Benchmarks: grade a generator, a reward model or a judge against data it was not made for."""
