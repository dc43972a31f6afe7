"""BentoML on the worker's side: loads a service, and describes what its code declares.
Uses: BentoML, the rest of `worker`.
Used by: `worker`; the daemon starts `describe` as a process.
"""
