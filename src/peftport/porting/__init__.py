"""Porting: methods and controls, found by name, and the account of what they did."""

from peftport.porting.account import Account, Entry
from peftport.porting.port import METHODS, SAMPLINGS, Ported, outline, port, port_method

__all__ = [
    "METHODS",
    "SAMPLINGS",
    "Account",
    "Entry",
    "Ported",
    "outline",
    "port",
    "port_method",
]
