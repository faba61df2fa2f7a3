"""Prefix tuning: everything that peftport knows of it."""

from peftport.techniques.prefix.core import (
    PrefixConfig,
    PrefixTuning,
    prefixed,
    prefixed_attentions,
)

__all__ = ["PrefixConfig", "PrefixTuning", "prefixed", "prefixed_attentions"]
