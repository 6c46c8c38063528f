// Where node-gyp and Node's headers are, for the scripts that build an addon.
import { spawnSync } from 'node:child_process';
import { existsSync, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of the package. */
export const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

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
export function findNodeGyp() {
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
export function headerArguments() {
  const prefix = resolve(dirname(realpathSync(process.execPath)), '..');
  const complete = existsSync(join(prefix, 'include', 'node', 'node_api.h'));
  return complete && !process.env.npm_config_nodedir ? [`--nodedir=${prefix}`] : [];
}

/** True if a command runs and exits with 0. */
export function works(command, args) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}
