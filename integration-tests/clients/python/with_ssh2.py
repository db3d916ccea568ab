"""ssh2-python: libssh2 as a library."""

import os
import socket
from threading import Thread

import gate
from ssh2.exceptions import SFTPProtocolError
from ssh2.session import Session
from ssh2.sftp import (
    LIBSSH2_FXF_CREAT,
    LIBSSH2_FXF_READ,
    LIBSSH2_FXF_TRUNC,
    LIBSSH2_FXF_WRITE,
    LIBSSH2_SFTP_S_IRUSR,
    LIBSSH2_SFTP_S_IWUSR,
)
from ssh2.sftp_handle import SFTPAttributes

MODE = LIBSSH2_SFTP_S_IRUSR | LIBSSH2_SFTP_S_IWUSR


def connect():
    session = Session()
    connection = socket.create_connection((gate.HOST, gate.PORT))
    session.handshake(connection)
    # It can read known_hosts, but not for other ports; the key is compared as the file has it.
    key = session.hostkey()[0]
    check(key)
    session.userauth_publickey_fromfile(gate.USER, gate.KEY, publickey=f"{gate.KEY}.pub")
    return session


def check(key):
    import base64

    known = [line.split()[2] for line in open(gate.KNOWN_HOSTS)]
    if base64.b64encode(key).decode() not in known:
        raise ValueError("unknown host key")


session = connect()
sftp = session.sftp_init()


def write(sftp, local, remote, flags, resume=False):
    with open(local, "rb") as source, sftp.open(remote, flags, MODE) as target:
        if resume:
            at = target.fstat().filesize
            source.seek(at)
            target.seek64(at)
        while piece := source.read(1 << 20):
            _, written = target.write(piece)
            if written != len(piece):
                raise OSError(f"{written} of {len(piece)} bytes")


def put(local, remote, sftp=sftp):
    write(sftp, local, remote, LIBSSH2_FXF_WRITE | LIBSSH2_FXF_CREAT | LIBSSH2_FXF_TRUNC)


def put_with_times(local, remote):
    put(local, remote)
    about = os.stat(local)
    attributes = SFTPAttributes()
    # ACMODTIME
    attributes.flags = 8
    attributes.atime, attributes.mtime = int(about.st_atime), int(about.st_mtime)
    sftp.setstat(remote, attributes)


def put_renamed(local, remote):
    put(local, f"{remote}.filepart")
    sftp.rename(f"{remote}.filepart", remote)


def put_and_stat(local, remote):
    put(local, remote)
    print(sftp.stat(remote).filesize)


def put_tree(local, remote):
    for path, there, directory in gate.walk(local, remote):
        sftp.mkdir(there, 0o755) if directory else put(str(path), there)


def put_at_once(*_):
    failures = []

    def one(local, remote):
        # A session is for one thread.
        try:
            own = connect()
            put(local, remote, own.sftp_init())
        except Exception as error:  # noqa: BLE001: it is raised below
            failures.append(error)

    threads = [Thread(target=one, args=pair) for pair in gate.pairs()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        raise failure


def list_(remote):
    with sftp.opendir(remote) as directory:
        for _, name, attributes in directory.readdir():
            print(attributes.filesize, name.decode())


def get(remote, local):
    with sftp.open(remote, LIBSSH2_FXF_READ, 0) as source, open(local, "wb") as target:
        for _, piece in source:
            target.write(piece)


def said(step):
    # Its exceptions carry no text; the code of the server's status is asked for.
    def run(*arguments):
        try:
            step(*arguments)
        except SFTPProtocolError as error:
            raise OSError(f"status {sftp.last_error()}") from error

    return run


gate.run({name: said(step) for name, step in {
    "put": put, "put-with-times": put_with_times, "put-renamed": put_renamed, "put-and-stat": put_and_stat,
    "resume": lambda local, remote: write(sftp, local, remote, LIBSSH2_FXF_WRITE, resume=True),
    "put-tree": put_tree, "put-at-once": put_at_once, "list": list_, "get": get, "remove": sftp.unlink,
}.items()})
session.disconnect()
