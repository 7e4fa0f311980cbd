"""Helpers that know nothing of explanations: files, random numbers, modules and their hooks."""
