"""Completion: a prompt, and what should follow it; what a host writes is compared with that.

`kind.py` is the kind, `readout.py` trains and tests it, `judging.py` compares.
"""
