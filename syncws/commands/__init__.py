"""The commands of ``python -m syncws``: a module for each, and what they share."""
