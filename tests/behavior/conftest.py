"""Models whose behavior is known: the fixtures of tests/models/scripted.py."""

from tests.models.scripted import random_native, scripted, some_problems

__all__ = ["random_native", "scripted", "some_problems"]
