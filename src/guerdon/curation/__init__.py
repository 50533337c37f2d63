"""Preference data made, judged, filtered and relabelled; training, judges and embedders come in as callables."""
