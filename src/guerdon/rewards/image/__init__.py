"""Rewards of images: detectors, vision-language judges, text-image agreement, similarity to references."""
