/** Two reports side by side: every figure and word that either has, by its path. */

type Leaf = string | number | boolean | null;

export interface Difference {
  /** As in `estimate.memory.total`. */
  path: string;
  /** Undefined where the report has none. */
  a: Leaf | undefined;
  b: Leaf | undefined;
  /** b / a − 1; 0 where both are equal, null where there is no ratio. */
  change: number | null;
}

/** In the order of the first report, then what only the second has. */
export function compareReports(a: unknown, b: unknown): Difference[] {
  const [left, right] = [leavesOf(a), leavesOf(b)];
  const paths = [...left.keys(), ...[...right.keys()].filter((path) => !left.has(path))];
  return paths.map((path) => {
    const [x, y] = [left.get(path), right.get(path)];
    return { path, a: x, b: y, change: changeOf(x, y) };
  });
}

function changeOf(a: Leaf | undefined, b: Leaf | undefined): number | null {
  if (a === b) return 0;
  return typeof a === 'number' && typeof b === 'number' && a !== 0 ? b / a - 1 : null;
}

function leavesOf(value: unknown, path = '', found = new Map<string, Leaf>()): Map<string, Leaf> {
  if (value !== null && typeof value === 'object') {
    for (const [key, part] of Object.entries(value)) leavesOf(part, path ? `${path}.${key}` : key, found);
  } else {
    found.set(path, value as Leaf);
  }
  return found;
}
