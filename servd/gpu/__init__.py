"""The helper process that asks the GPUs' driver, whose calls can hang where a GPU is sick.

Uses: core and wire; pynvml, if it is installed.
Used by: the daemon and the command line, which start it as a program.
"""
