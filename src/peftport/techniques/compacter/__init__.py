"""Compacter: everything that peftport knows of it."""

from peftport.techniques.compacter.core import RULE, Compacter, CompacterConfig, weight

__all__ = ["RULE", "Compacter", "CompacterConfig", "weight"]
