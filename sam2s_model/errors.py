"""The root of every error this project raises on purpose."""

from __future__ import annotations


class Sam2sError(Exception):
    """Something the caller can mend; the message says what is wrong and what would be right.

    Each area derives its own classes from this one. The command line prints the message as one
    sentence and exits with code 2, so a message must make sense without its traceback.
    """
