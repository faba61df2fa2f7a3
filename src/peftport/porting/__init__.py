"""Porting: methods and controls, found by name, and the account of what they did."""

from peftport.porting.account import Account, Entry
from peftport.porting.methods import (
    METHODS,
    SAMPLINGS,
    Verdict,
    judge,
    judge_all,
    port_method,
    to_try,
)
from peftport.porting.port import PortedModule, port

__all__ = [
    "METHODS",
    "SAMPLINGS",
    "Account",
    "Entry",
    "PortedModule",
    "Verdict",
    "judge",
    "judge_all",
    "port",
    "port_method",
    "to_try",
]
