import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';

/** Every example runs as it stands, on the built library. */
const FOLDER = path.join(import.meta.dirname, '../examples');

it.each(fs.readdirSync(FOLDER))('%s runs', (name) => {
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'fathom-example-'));
  try {
    const child = spawnSync(process.execPath, [path.join(FOLDER, name), path.join(scratch, 'run')], {
      encoding: 'utf8',
    });
    expect(child.status, child.stderr).toBe(0);
    expect(child.stdout).toMatch(/loss \d/);
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true });
  }
});
