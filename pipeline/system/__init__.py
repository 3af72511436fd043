"""The machine: processes, files, ports, git, and the progress that people see.

Knows nothing of the pipeline.
"""
