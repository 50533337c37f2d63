"""Recipes: one file for each system that trains or optimises something, named by its slug."""
