"""The process that runs one app: standard library and uvicorn only, so that it starts fast."""
