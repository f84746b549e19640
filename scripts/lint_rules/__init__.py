"""The rules of scripts/lint.py, by what they look at."""
