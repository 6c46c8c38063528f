// Builds the C++ addon into build/Release/fathom.node with node-gyp. Runs in `npm install`.
//
//   node scripts/build-native.mjs            a machine without a compiler gets one line and exit code 0
//   node scripts/build-native.mjs --strict   any failure is exit code 1, with the compiler's output
import { spawnSync } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const strict = process.argv.includes('--strict');

/** The first existing path of a list of candidates, or undefined. */
function firstExisting(candidates) {
  return candidates.find((path) => path && existsSync(path));
}

/** Every place where an npm that belongs to this Node or to PATH may keep itself. */
function npmFolders() {
  const folders = [];
  if (process.env.npm_execpath) folders.push(resolve(dirname(process.env.npm_execpath), '..'));
  const prefix = resolve(dirname(realpathSync(process.execPath)), '..');
  folders.push(join(prefix, 'lib', 'node_modules', 'npm'), join(prefix, 'share', 'nodejs', 'npm'));
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const npm = join(folder, 'npm');
    if (existsSync(npm)) folders.push(resolve(dirname(realpathSync(npm)), '..'));
  }
  return folders;
}

/** The script of node-gyp: npm's own setting, a local or neighbouring install, or the one bundled with npm. */
function findNodeGyp() {
  const require = createRequire(join(root, 'package.json'));
  const local = (name) => {
    try {
      return require.resolve(name);
    } catch {
      return undefined;
    }
  };
  const bundled = npmFolders().flatMap((folder) => [
    join(folder, 'node_modules', 'node-gyp', 'bin', 'node-gyp.js'),
    join(folder, '..', 'node-gyp', 'bin', 'node-gyp.js'),
  ]);
  const configured = process.env.npm_config_node_gyp;
  return firstExisting([configured, local('node-gyp/bin/node-gyp.js'), ...bundled]);
}

/** Node's headers next to the running binary (distribution packages, nvm, Docker images): no download then. */
function headerArguments() {
  const prefix = resolve(dirname(realpathSync(process.execPath)), '..');
  const complete = existsSync(join(prefix, 'include', 'node', 'node_api.h'));
  return complete && !process.env.npm_config_nodedir ? [`--nodedir=${prefix}`] : [];
}

/** True if a command runs and exits with 0. */
function works(command, args) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

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
