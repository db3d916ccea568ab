"""paramiko: what a script is told when it goes wrong, and that a file opened and closed without a write stays as it is.
/upload/put.bin must have been delivered, and /upload/tree be a directory."""

import gate
from with_paramiko import sftp


def refused(text, ask, *arguments):
    try:
        ask(*arguments)
    except OSError as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"no refusal with {text!r}")


size = sftp.stat("/sent/put.bin").st_size
sftp.open("/upload/put.bin", "r+").close()
assert sftp.stat("/sent/put.bin").st_size == size
appended = sftp.open("/upload/put.bin", "a")
refused("upload it whole", lambda: (appended.write(b"more"), appended.flush()))
refused("make it first", sftp.open, "/upload/no/such", "w")
refused("exists already", sftp.mkdir, "/upload/tree")
refused("backslash", sftp.open, "/upload/a\\b", "w")
