"""Prefix tuning: everything that peftport knows of it."""

from peftport.techniques.prefix.core import PrefixConfig, PrefixTuning, chosen, prefixed

__all__ = ["PrefixConfig", "PrefixTuning", "chosen", "prefixed"]
