"""Proof that a module's folder acts: in the library that it is meant for, and by servers' rules."""
