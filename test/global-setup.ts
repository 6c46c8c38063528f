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
  buildMpi(root);
}

/** Builds the MPI addon where an MPI compiler is; tests over MPI are skipped, and say so, without it. */
function buildMpi(root: string): void {
  if (existsSync(`${root}/native/mpi/build/Release/fathom_mpi.node`)) return;
  const built = spawnSync(process.execPath, ['scripts/build-mpi.mjs'], { cwd: root, encoding: 'utf8' });
  if (built.status !== 0) process.stderr.write(built.stderr.trimEnd().concat('\n'));
}
