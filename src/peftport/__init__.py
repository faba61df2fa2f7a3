"""peftport ports PEFT modules from one pretrained language model to another and measures,
with honest controls, how much of them survives."""

__version__ = "0.1.0"
