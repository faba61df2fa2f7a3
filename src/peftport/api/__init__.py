"""The Python interface: what the command line does, as functions with results.

Use it as `import peftport as pp`; the package gives each name at its first use.
"""
