"""Contracts, configuration, data schemas and the catalogue; nothing here imports torch until it is used."""
