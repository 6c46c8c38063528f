import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * The rooms of src/ and what each may import besides itself. Arrows point down only: a room stands on rooms that are
 * listed before it. `errors` and `files` are single modules beside the rooms.
 */
const ROOMS: Record<string, { uses: readonly string[]; node?: boolean }> = {
  errors: { uses: [] },
  numerics: { uses: ['errors'] },
  spec: { uses: ['errors'] },
  report: { uses: ['spec'] },
  cluster: { uses: ['errors', 'numerics', 'spec'] },
  plan: { uses: ['errors', 'numerics', 'spec', 'cluster'] },
  files: { uses: ['errors'], node: true },
  tensor: { uses: ['errors', 'numerics', 'spec'] },
  backend: { uses: ['errors', 'files', 'numerics', 'spec', 'tensor'], node: true },
  text: { uses: ['errors', 'files', 'numerics'], node: true },
  model: { uses: ['errors', 'files', 'numerics', 'spec', 'tensor', 'backend'], node: true },
  expert: {
    uses: ['errors', 'files', 'numerics', 'spec', 'report', 'plan', 'tensor', 'backend', 'model'],
    node: true,
  },
  infer: {
    uses: ['errors', 'files', 'numerics', 'spec', 'report', 'tensor', 'backend', 'text', 'model', 'expert'],
    node: true,
  },
  train: {
    uses: [
      'errors',
      'files',
      'numerics',
      'spec',
      'report',
      'plan',
      'tensor',
      'backend',
      'text',
      'model',
      'expert',
    ],
    node: true,
  },
  serve: { uses: ['errors', 'files', 'spec', 'text', 'infer'], node: true },
  bench: {
    uses: [
      'errors',
      'files',
      'numerics',
      'spec',
      'report',
      'cluster',
      'plan',
      'tensor',
      'backend',
      'text',
      'model',
      'expert',
      'infer',
      'serve',
      'train',
    ],
    node: true,
  },
  study: {
    uses: [
      'errors',
      'files',
      'numerics',
      'spec',
      'report',
      'plan',
      'tensor',
      'backend',
      'text',
      'model',
      'infer',
      'train',
    ],
    node: true,
  },
  paper: { uses: ['errors', 'numerics', 'spec', 'report', 'cluster', 'plan'] },
  // On top: may use everything below.
  cli: { uses: ['*'], node: true },
  index: { uses: ['*'], node: true },
};

interface Module {
  /** Path inside src/. */
  file: string;
  room: string;
  /** Paths inside src/ of what it imports, types included. */
  imports: string[];
  /** Names of the packages and `node:` modules that it imports. */
  packages: string[];
}

const IMPORT = /(?:\bfrom|\bimport)\s*\(?\s*'([^']+)'/g;

/** Every import of a source text, static, dynamic and of types; examples in comments do not count. */
const importsOf = (source: string): string[] =>
  [...withoutComments(source).matchAll(IMPORT)].map((match) => match[1]!);

const withoutComments = (source: string): string => source.replaceAll(/\/\*[\s\S]*?\*\//g, '');

const roomOf = (file: string): string => file.split('/')[0]!.replace(/\.ts$/, '');

function readModules(): Module[] {
  const files = readdirSync(path.join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .map((file) => file.split(path.sep).join('/'))
    .filter((file) => file.endsWith('.ts'));
  return files.map((file) => {
    const found = importsOf(readFileSync(path.join(root, 'src', file), 'utf8'));
    const relative = found.filter((name) => name.startsWith('.'));
    return {
      file,
      room: roomOf(file),
      imports: relative.map((name) =>
        path.posix.join(path.posix.dirname(file), name).replace(/\.js$/, '.ts'),
      ),
      packages: found.filter((name) => !name.startsWith('.')),
    };
  });
}

const modules = readModules();

describe('imports', () => {
  it('sees static, dynamic and type imports', () => {
    const source =
      "import a from './a.js';\nexport * from 'b';\nimport type { C } from './c.js';\nawait import('node:d');";
    expect(importsOf(source)).toEqual(['./a.js', 'b', './c.js', 'node:d']);
  });

  it('lists every room', () => {
    expect(modules.filter(({ room }) => !ROOMS[room]).map(({ file }) => file)).toEqual([]);
  });

  it('points down only', () => {
    const names = Object.keys(ROOMS);
    for (const [room, { uses }] of Object.entries(ROOMS)) {
      for (const used of uses)
        if (used !== '*') expect(names.indexOf(used)).toBeLessThan(names.indexOf(room));
    }
  });

  it('stays within what each room may use', () => {
    const wrong = modules.flatMap(({ file, room, imports }) => {
      const { uses } = ROOMS[room] ?? { uses: ['*'] };
      const allowed = (other: string) => other === room || uses.includes(other) || uses.includes('*');
      return imports
        .filter((target) => !allowed(roomOf(target)))
        .map((target) => `${file} imports ${target}`);
    });
    expect(wrong).toEqual([]);
  });

  it('keeps Node out of what also runs in a browser', () => {
    const wrong = modules.flatMap(({ file, room, packages }) =>
      ROOMS[room]?.node
        ? []
        : packages.filter((name) => name.startsWith('node:')).map((name) => `${file}: ${name}`),
    );
    expect(wrong).toEqual([]);
  });

  it('takes only declared packages', () => {
    const { dependencies } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as {
      dependencies: Record<string, string>;
    };
    const packageOf = (name: string) => name.split('/', name.startsWith('@') ? 2 : 1).join('/');
    const wrong = modules.flatMap(({ file, packages }) =>
      packages
        .filter((name) => !name.startsWith('node:') && !dependencies[packageOf(name)])
        .map((name) => `${file}: ${name}`),
    );
    expect(wrong).toEqual([]);
  });

  it('has no cycles', () => {
    expect(findCycle(new Map(modules.map(({ file, imports }) => [file, imports])))).toEqual([]);
  });
});

/** The first cycle found, as the modules on it; empty where there is none. */
function findCycle(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const done = new Set<string>();
  const visit = (file: string, trail: readonly string[]): string[] => {
    if (trail.includes(file)) return [...trail.slice(trail.indexOf(file)), file];
    if (done.has(file)) return [];
    for (const next of graph.get(file) ?? []) {
      const cycle = visit(next, [...trail, file]);
      if (cycle.length > 0) return cycle;
    }
    done.add(file);
    return [];
  };
  for (const file of graph.keys()) {
    const cycle = visit(file, []);
    if (cycle.length > 0) return cycle;
  }
  return [];
}
