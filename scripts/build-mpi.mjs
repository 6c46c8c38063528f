// Builds the MPI addon into native/mpi/build/Release/fathom_mpi.node with the compiler wrapper of Open MPI or MPICH
// (mpicxx in PATH, or the one named by MPICXX). Run by `npm run build:mpi`; nothing else needs it.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { findNodeGyp, headerArguments, root, works } from './node-gyp.mjs';

/** Says what is missing and how to get it, and ends the process. */
function giveUp(reason, remedy) {
  console.error(`fathom: MPI addon not built: ${reason}. ${remedy}, then run: npm run build:mpi`);
  process.exit(1);
}

const DEBIAN = 'On Debian or Ubuntu: sudo apt-get install openmpi-bin libopenmpi-dev g++ make python3';

/** The MPI library's C++ compiler. */
function findCompiler() {
  const candidates = process.env.MPICXX ? [process.env.MPICXX] : ['mpicxx', 'mpic++', 'mpiCC'];
  return candidates.find((name) => works(name, ['--version']));
}

const compiler = findCompiler();
if (!compiler) {
  const named = process.env.MPICXX
    ? `MPICXX=${process.env.MPICXX} does not run`
    : 'no MPI compiler (mpicxx) in PATH';
  giveUp(named, DEBIAN);
}
const program = ['-fsyntax-only', '-include', 'mpi.h', '-x', 'c++', '/dev/null'];
if (!works(compiler, program)) giveUp(`${compiler} does not find mpi.h`, DEBIAN);
if (!works(process.env.MAKE ?? 'make', ['--version'])) giveUp('make was not found', DEBIAN);
const nodeGyp = findNodeGyp();
if (!nodeGyp) giveUp('node-gyp was not found beside npm', 'Install npm');

for (const step of ['configure', 'build']) {
  const args = [nodeGyp, step, '--release', ...(step === 'build' ? ['--jobs=2'] : headerArguments())];
  const cwd = join(root, 'native', 'mpi');
  const env = { ...process.env, CXX: compiler, LINK: compiler };
  const done = spawnSync(process.execPath, args, { cwd, env, stdio: 'pipe', encoding: 'utf8' });
  if (done.status === 0) continue;
  process.stderr.write(`${done.stdout}${done.stderr}`);
  giveUp(`node-gyp ${step} failed (see above)`, 'Check the compiler');
}
console.log(
  `fathom: MPI addon built with ${compiler}; start it with: mpirun -n 4 npx fathom train --expert-parallel 4`,
);
