import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/**
 * Builds dist/ once, for the tests that run the command line as a user does. Type errors do not stop the build here;
 * `npm run typecheck` reports them.
 */
export default function setup(): void {
  const root = fileURLToPath(new URL('..', import.meta.url));
  const tsc = fileURLToPath(new URL('../node_modules/typescript/bin/tsc', import.meta.url));
  const built = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], {
    cwd: root,
    encoding: 'utf8',
  });
  if (!existsSync(`${root}/dist/cli/main.js`)) {
    throw new Error(`cannot build dist/:\n${built.stdout}${built.stderr}`);
  }
}
