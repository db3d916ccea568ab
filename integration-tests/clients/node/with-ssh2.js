// ssh2: fastPut, which writes 64 pieces at a time in any order.
'use strict';

const { once } = require('node:events');
const { statSync, createReadStream } = require('node:fs');
const { pipeline } = require('node:stream/promises');
const { promisify } = require('node:util');
const { Client } = require('ssh2');
const gate = require('./gate');

async function main() {
  const client = new Client();
  client.connect(gate.login);
  await once(client, 'ready');
  const sftp = await promisify(client.sftp.bind(client))();
  const ask = (name) => promisify(sftp[name].bind(sftp));
  const put = ask('fastPut');
  await gate.run({
    put,
    'put-with-times': async (local, remote) => {
      await put(local, remote);
      const about = statSync(local);
      await ask('utimes')(remote, about.atime, about.mtime);
    },
    'put-renamed': async (local, remote) => {
      await put(local, `${remote}.filepart`);
      await ask('rename')(`${remote}.filepart`, remote);
    },
    'put-and-stat': async (local, remote) => {
      await put(local, remote);
      console.log((await ask('stat')(remote)).size);
    },
    resume: async (local, remote) => {
      const start = (await ask('stat')(remote)).size;
      await pipeline(createReadStream(local, { start }), sftp.createWriteStream(remote, { flags: 'r+', start }));
    },
    'put-tree': async (local, remote) => {
      for (const entry of gate.walk(local, remote)) {
        await (entry.directory ? ask('mkdir')(entry.remote) : put(entry.local, entry.remote));
      }
    },
    'put-at-once': () => Promise.all(gate.pairs().map(([local, remote]) => put(local, remote))),
    list: async (remote) => {
      for (const entry of await ask('readdir')(remote)) console.log(entry.attrs.size, entry.filename);
    },
    get: ask('fastGet'),
    remove: ask('unlink'),
  }, () => client.end());
}

main();
