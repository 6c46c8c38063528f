import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type ServerProcess, startServer } from './serve/child.js';
import { makeTinyModel, removeModel } from './serve/tiny-model.js';

/** Every example runs as it stands, on the built library. */
const FOLDER = path.join(import.meta.dirname, '../examples');
/** Those that talk to a server, with what they print last. */
const CLIENTS: Record<string, RegExp> = {
  'ai-sdk.mjs': /^whole: [\s\S]*\n\d+ tokens read, \d+ written\nstream: /,
  'openai-client.mjs': /^completion: [\s\S]*\nchat: [\s\S]*\n\d+ tokens read, \d+ written\n$/,
};

function run(name: string, ...args: string[]): string {
  const child = spawnSync(process.execPath, [path.join(FOLDER, name), ...args], { encoding: 'utf8' });
  expect(child.status, child.stderr).toBe(0);
  return child.stdout;
}

/** Scenarios (JSON) are run by test/cli/network.test.ts. */
const SCRIPTS = fs.readdirSync(FOLDER).filter((name) => name.endsWith('.mjs') && !(name in CLIENTS));

it.each(SCRIPTS)('%s runs', (name) => {
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-example-'));
  try {
    expect(run(name, path.join(scratch, 'run'))).toMatch(/loss \d/);
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true });
  }
});

let folder: string;
let server: ServerProcess;
beforeAll(async () => {
  folder = makeTinyModel();
  server = await startServer(folder);
});
afterAll(async () => {
  server?.child.kill('SIGTERM');
  await server?.ended;
  removeModel(folder);
});

it.each(Object.entries(CLIENTS))('%s runs against fathom serve', (name, expected) => {
  expect(run(name, `${server.url}/v1`)).toMatch(expected);
});
