// Where the gate is, and the step that a library is told by the command line. A step that fails ends with code 1.
'use strict';

const { readFileSync, readdirSync } = require('node:fs');
const { join } = require('node:path');

const [step, ...paths] = process.argv.slice(2);

// The host keys of the gate: base64 of their blobs.
const known = readFileSync(process.env.GATE_KNOWN_HOSTS, 'utf8').trim().split('\n').map((line) => line.split(' ')[2]);

const login = {
  host: process.env.GATE_HOST,
  port: Number(process.env.GATE_PORT),
  username: process.env.GATE_USER,
  privateKey: readFileSync(process.env.GATE_KEY),
  hostVerifier: (key) => known.includes(key.toString('base64')),
};

// The files of put-at-once.
const pairs = () => paths.filter((_, n) => n % 2 === 0).map((local, n) => [local, paths[2 * n + 1]]);

// Directories and files below a directory, each before what is in it.
function* walk(local, remote) {
  yield { local, remote, directory: true };
  for (const entry of readdirSync(local, { withFileTypes: true })) {
    const [here, there] = [join(local, entry.name), `${remote}/${entry.name}`];
    if (entry.isDirectory()) yield* walk(here, there);
    else yield { local: here, remote: there, directory: false };
  }
}

async function run(steps, close) {
  try {
    await steps[step](...paths);
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
  close();
}

module.exports = { login, pairs, walk, run };
