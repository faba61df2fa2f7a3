"""Hosts with modules as other libraries take them."""
