"""LoRA: everything that peftport knows of it."""

from peftport.techniques.lora.core import Lora, LoraConfig, targets

__all__ = ["Lora", "LoraConfig", "targets"]
