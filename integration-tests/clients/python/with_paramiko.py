"""paramiko."""

import os
from concurrent.futures import ThreadPoolExecutor

import gate
import paramiko

client = paramiko.SSHClient()
client.load_host_keys(gate.KNOWN_HOSTS)
client.connect(gate.HOST, gate.PORT, gate.USER, gate.PASSWORD, allow_agent=False, look_for_keys=False)
sftp = client.open_sftp()


def put_with_times(local, remote):
    sftp.put(local, remote)
    about = os.stat(local)
    sftp.utime(remote, (about.st_atime, about.st_mtime))


def put_renamed(local, remote):
    sftp.put(local, f"{remote}.filepart")
    sftp.posix_rename(f"{remote}.filepart", remote)


def put_and_stat(local, remote):
    sftp.put(local, remote)
    print(sftp.stat(remote).st_size)


def resume(local, remote):
    # r+ opens without truncating; it has no call of its own for this.
    with open(local, "rb") as source, sftp.open(remote, "r+") as target:
        target.set_pipelined(True)
        at = target.stat().st_size
        source.seek(at)
        target.seek(at)
        while piece := source.read(32 * 1024):
            target.write(piece)


def put_tree(local, remote):
    for path, there, directory in gate.walk(local, remote):
        sftp.mkdir(there) if directory else sftp.put(str(path), there)


def put_at_once(*_):
    # One channel each, on one connection.
    def one(pair):
        client.open_sftp().put(*pair)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, gate.pairs()))


def list_(remote):
    for entry in sftp.listdir_attr(remote):
        print(entry.st_size, entry.filename)


if __name__ == "__main__":
    gate.run({
        "put": sftp.put, "put-with-times": put_with_times, "put-renamed": put_renamed, "put-and-stat": put_and_stat,
        "resume": resume, "put-tree": put_tree, "put-at-once": put_at_once, "list": list_, "get": sftp.get,
        "remove": sftp.remove,
    })
    client.close()
