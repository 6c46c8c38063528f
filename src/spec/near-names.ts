import type { z } from 'zod';

/** More changes than this are no misspelling. */
const MOST_CHANGES = 3;

/** Names of all fields of a JSON schema, at any depth. */
export function fieldsOf(schema: unknown): Set<string> {
  const names = new Set<string>();
  const visit = (node: unknown): void => {
    if (typeof node !== 'object' || node === null) return;
    for (const [key, value] of Object.entries(node)) {
      if (key === 'properties') for (const name of Object.keys(value as object)) names.add(name);
      visit(value);
    }
  };
  visit(schema);
  return names;
}

/** What unknown fields of a failed parse were probably meant to be, as the end of a message; empty where nothing is near. */
export function nearestFields(error: z.ZodError, known: ReadonlySet<string>): string {
  const first = error.issues.find(({ code }) => code === 'unrecognized_keys');
  if (first?.code !== 'unrecognized_keys') return '';
  const near = first.keys.flatMap((name) => nearestName(name, known) ?? []);
  return near.length > 0 ? ` (did you mean ${near.map((name) => `"${name}"`).join(', ')}?)` : '';
}

/** The known name with fewest changes of a letter; undefined where it takes more than three, or half of the letters. */
export function nearestName(name: string, known: Iterable<string>): string | undefined {
  let [best, least]: [string | undefined, number] = [
    undefined,
    Math.min(MOST_CHANGES, name.length / 2) + 0.5,
  ];
  for (const candidate of known) {
    // A name that is right elsewhere is wrong here.
    if (candidate === name) continue;
    const changes = distance(name.toLowerCase(), candidate.toLowerCase());
    if (changes < least) [best, least] = [candidate, changes];
  }
  return best;
}

/** Letters to be put in, taken out or changed [Levenshtein 1966]. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
