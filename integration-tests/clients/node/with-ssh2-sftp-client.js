// ssh2-sftp-client: promises around ssh2.
'use strict';

const { createReadStream } = require('node:fs');
const Client = require('ssh2-sftp-client');
const gate = require('./gate');

async function main() {
  const client = new Client();
  await client.connect(gate.login);
  const put = (local, remote) => client.fastPut(local, remote);
  await gate.run({
    put: (local, remote) => client.put(local, remote),
    'put-renamed': async (local, remote) => {
      await client.put(local, `${remote}.filepart`);
      await client.posixRename(`${remote}.filepart`, remote);
    },
    'put-and-stat': async (local, remote) => {
      await client.put(local, remote);
      console.log((await client.stat(remote)).size);
    },
    resume: async (local, remote) => {
      const start = (await client.stat(remote)).size;
      await client.put(createReadStream(local, { start }), remote, { writeStreamOptions: { flags: 'r+', start } });
    },
    'put-tree': (local, remote) => client.uploadDir(local, remote),
    'put-at-once': () => Promise.all(gate.pairs().map(([local, remote]) => put(local, remote))),
    list: async (remote) => {
      for (const entry of await client.list(remote)) console.log(entry.size, entry.name);
    },
    get: (remote, local) => client.get(remote, local),
    remove: (remote) => client.delete(remote),
  }, () => client.end());
}

main();
