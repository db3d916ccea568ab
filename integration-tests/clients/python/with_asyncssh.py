"""asyncssh."""

import asyncio

import asyncssh
import gate


async def put_renamed(sftp, local, remote):
    await sftp.put(local, f"{remote}.filepart")
    await sftp.posix_rename(f"{remote}.filepart", remote)


async def put_and_stat(sftp, local, remote):
    await sftp.put(local, remote)
    print((await sftp.stat(remote)).size)


async def resume(sftp, local, remote):
    # r+ opens without truncating; it has no call of its own for this.
    with open(local, "rb") as source:
        async with sftp.open(remote, "r+b") as target:
            at = (await target.stat()).size
            source.seek(at)
            await target.seek(at)
            while piece := source.read(1 << 20):
                await target.write(piece)


async def put_at_once(sftp, *_):
    await asyncio.gather(*(sftp.put(local, remote) for local, remote in gate.pairs()))


async def list_(sftp, remote):
    for entry in await sftp.readdir(remote):
        print(entry.attrs.size, entry.filename)


STEPS = {
    "put": lambda sftp, *paths: sftp.put(*paths),
    "put-with-times": lambda sftp, *paths: sftp.put(*paths, preserve=True),
    "put-renamed": put_renamed,
    "put-and-stat": put_and_stat,
    "resume": resume,
    "put-tree": lambda sftp, *paths: sftp.put(*paths, recurse=True),
    "put-at-once": put_at_once,
    "list": list_,
    "get": lambda sftp, *paths: sftp.get(*paths),
    "remove": lambda sftp, path: sftp.remove(path),
}


async def take(step, *arguments):
    async with asyncssh.connect(
        gate.HOST, gate.PORT, username=gate.USER, client_keys=[gate.KEY], known_hosts=gate.KNOWN_HOSTS, config=None
    ) as connection, connection.start_sftp_client() as sftp:
        await step(sftp, *arguments)


gate.run({name: lambda *arguments, step=step: asyncio.run(take(step, *arguments)) for name, step in STEPS.items()})
