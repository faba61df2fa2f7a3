"""Completion: a prompt, and what should follow it; what a host writes is compared with that.

`kind.py` is the kind, `writing.py` has a host write, `judging.py` compares.
"""
