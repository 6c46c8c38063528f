import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Lines of a file of TypeScript; of C++, where one kernel is written for several types; and of one function. */
const FILE_LINES = 400;
const NATIVE_FILE_LINES = 550;
const FUNCTION_LINES = 60;

function filesUnder(folder: string, extensions: readonly string[]): { name: string; lines: string[] }[] {
  return readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => extensions.some((extension) => name.endsWith(extension)))
    .map((name) => {
      const text = readFileSync(path.join(root, folder, name), 'utf8');
      return { name: path.posix.join(folder, name), lines: text.trimEnd().split('\n') };
    });
}

/** The first line of a function, method or block-bodied arrow, as Biome formats it. */
const START =
  /^(\s*)(?!(?:if|for|while|switch|else|do|try|class|interface)\b|\}).*(?:=> |\)|\)(?:: .*)) ?\{$/;
const PARAMETERS_END = /^(\s*)\)(?:: .*)? (?:=> )?\{$/;

/**
 * Functions with their lengths. The formatter puts a function's closing brace at the indentation of its first line (or
 * of the line that closes its parameters), which is all that this scan knows about TypeScript.
 */
function functionLengths(lines: readonly string[]): { line: number; length: number }[] {
  return lines.flatMap((text, start) => {
    const match = START.exec(text) ?? PARAMETERS_END.exec(text);
    if (!match || /^\s*(?:export )?(?:describe|suite)\(/.test(text)) return [];
    const end = lines.findIndex((line, l) => l > start && line.startsWith(`${match[1]}}`));
    return end < 0 ? [] : [{ line: start + 1, length: end - start + 1 }];
  });
}

describe('size', () => {
  const source = filesUnder('src', ['.ts']);
  const tooLong = (files: typeof source, limit: number) =>
    files.filter(({ lines }) => lines.length > limit).map(({ name, lines }) => `${name}: ${lines.length}`);

  it(`keeps files within ${FILE_LINES} lines, native ones within ${NATIVE_FILE_LINES}`, () => {
    expect(tooLong(source, FILE_LINES)).toEqual([]);
    expect(tooLong(filesUnder('native', ['.cc', '.h']), NATIVE_FILE_LINES)).toEqual([]);
  });

  it('finds functions, methods and arrows', () => {
    const sample = [
      'export function a(x: number): void {',
      '  if (x) {',
      '    run();',
      '  }',
      '}',
      '  method(',
      '    y: number,',
      '  ): Promise<void> {',
      '    return y;',
      '  }',
      'const f = (z: number) => {',
      '};',
    ];
    expect(functionLengths(sample)).toEqual([
      { line: 1, length: 5 },
      { line: 8, length: 3 },
      { line: 11, length: 2 },
    ]);
  });

  it(`keeps functions within ${FUNCTION_LINES} lines`, () => {
    const long = source.flatMap(({ name, lines }) =>
      functionLengths(lines)
        .filter(({ length }) => length > FUNCTION_LINES)
        .map(({ line, length }) => `${name}:${line}: ${length} lines`),
    );
    expect(long).toEqual([]);
  });
});
