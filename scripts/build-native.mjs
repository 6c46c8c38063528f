// Builds the C++ addon into build/Release/fathom.node with node-gyp. Runs in `npm install`.
//
//   node scripts/build-native.mjs            a machine without a compiler gets one line and exit code 0
//   node scripts/build-native.mjs --strict   any failure is exit code 1, with the compiler's output
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { findNodeGyp, headerArguments, root, works } from './node-gyp.mjs';

const strict = process.argv.includes('--strict');

/** Why a build cannot even be tried here, or undefined. */
function missingTool() {
  if (process.platform === 'win32')
    return 'the kernels need GCC or Clang, which a Windows Node does not build with';
  if (!works(process.env.CXX ?? 'c++', ['--version'])) return 'no C++ compiler (c++) was found';
  if (!works(process.env.MAKE ?? 'make', ['--version'])) return 'make was not found';
  return undefined;
}

/** Arguments for gyp: without AMX where the compiler does not know it. */
function gypArguments() {
  const flags = ['-mamx-tile', '-mamx-bf16', '-fsyntax-only', '-x', 'c++', '/dev/null'];
  const usable = process.arch !== 'x64' || works(process.env.CXX ?? 'c++', flags);
  return ['--', `-Dfathom_amx=${usable ? 1 : 0}`];
}

/** Says what happens without the addon, once, and ends the process. */
function giveUp(reason) {
  console.error(
    `fathom: native addon not built: ${reason}. Everything still works on the slower reference backend; ` +
      'to get the fast one install g++, make and Python 3, then run: npm run build:native',
  );
  process.exit(strict ? 1 : 0);
}

const reason = missingTool();
if (reason) giveUp(reason);
const nodeGyp = findNodeGyp();
if (!nodeGyp) giveUp('node-gyp was not found beside npm');

const verbose = strict || process.env.FATHOM_VERBOSE;
const jobs = `--jobs=${availableParallelism()}`;
for (const step of ['configure', 'build']) {
  const args = [
    nodeGyp,
    step,
    '--release',
    ...(step === 'build' ? [jobs] : [...headerArguments(), ...gypArguments()]),
  ];
  const done = spawnSync(process.execPath, args, {
    cwd: root,
    stdio: verbose ? 'inherit' : 'pipe',
    encoding: 'utf8',
  });
  if (done.status !== 0) {
    if (!verbose)
      process.stderr.write(
        `${done.stderr ?? ''}`
          .split('\n')
          .filter((line) => /error/i.test(line))
          .slice(0, 10)
          .join('\n'),
      );
    giveUp(`node-gyp ${step} failed${done.error ? ` (${done.error.message})` : ''}`);
  }
}
