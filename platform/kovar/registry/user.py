"""Who runs this process."""

import getpass
import socket


def current_user() -> str:
    """Return user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
