import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.js';
import { Tokenizer } from '../../src/text/tokenizer.js';
import { type Answers, readGolden } from './goldens.js';

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const main = readGolden<Record<string, Json>>('tokenizer.json');
const pipelines = readGolden<Record<string, Answers & { changes: Record<string, Json> }>>('pipelines.json');
const cutting = readGolden<{ cases: { config: Json }[] }>('pre_tokenizers.json');

/** Starting points of every model type and pre-tokenizer, with the vocabularies cut short to keep mutation fast. */
const seeds: Json[] = [
  ...['WordPiece', 'Unigram', 'BPE with byte fallback', 'Strip', 'BertNormalizer'].map((name) =>
    shorten({ ...main, ...pipelines[name].changes }),
  ),
  ...cutting.cases.map(({ config }) => shorten({ ...main, pre_tokenizer: config })),
];

function shorten(json: Record<string, Json>): Json {
  const model = json.model as { vocab: Json[] | Record<string, Json>; merges?: Json[] };
  const vocab = Array.isArray(model.vocab)
    ? model.vocab.slice(0, 40)
    : Object.fromEntries(Object.entries(model.vocab).slice(0, 300));
  const isKnown = (merge: Json) => Object.hasOwn(vocab, (merge as string[]).join(''));
  return {
    ...json,
    model: { ...model, vocab, ...(model.merges ? { merges: model.merges.filter(isKnown) } : {}) },
  };
}

/** Every place in a value, as a path of keys; large tables give a few entries only. */
function places(json: Json, path: (string | number)[] = []): (string | number)[][] {
  if (typeof json !== 'object' || json === null) return [path];
  const entries = Array.isArray(json) ? [...json.entries()] : Object.entries(json);
  return [path, ...entries.slice(0, 8).flatMap(([key, value]) => places(value, [...path, key]))];
}

function replaceAt(json: Json, [key, ...rest]: (string | number)[], value: Json | undefined): Json {
  if (key === undefined) return value ?? null;
  const copy = (Array.isArray(json) ? [...json] : { ...(json as object) }) as Record<string | number, Json>;
  if (rest.length > 0) copy[key] = replaceAt(copy[key], rest, value);
  else if (value === undefined) delete copy[key];
  else copy[key] = value;
  return copy;
}

const strange: fc.Arbitrary<Json | undefined> = fc.oneof(
  fc.constantFrom<(Json | undefined)[]>(
    undefined,
    null,
    0,
    -1,
    1e9,
    2 ** 60,
    0.5,
    '',
    ' ',
    'Removed',
    'Sequence',
    '[',
    [],
    {},
    true,
  ),
  fc.jsonValue({ maxDepth: 2 }) as fc.Arbitrary<Json>,
);

/** One seed with one to three places replaced or removed. */
const mutated = fc
  .tuple(fc.nat(seeds.length - 1), fc.array(fc.tuple(fc.nat(), strange), { minLength: 1, maxLength: 3 }))
  .map(([index, edits]) => {
    let json = seeds[index];
    for (const [choice, value] of edits) {
      const all = places(json);
      json = replaceAt(json, all[choice % all.length], value);
    }
    return json;
  });

function useOrExplain(source: Uint8Array): void {
  try {
    const tokenizer = new Tokenizer(source);
    const ids = tokenizer.encode('The union, été 123 中文 <s>\n  😀');
    expect(ids.every((id) => id >= 0 && id < tokenizer.vocabSize)).toBe(true);
    expect(typeof tokenizer.decode(ids)).toBe('string');
    const stream = tokenizer.stream();
    for (const id of ids) stream.push(id);
    stream.end();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    expect(error.message).not.toContain('\n');
  }
}

describe('fuzzing the tokenizer reader', () => {
  it('gives a working tokenizer or a UserError for mutated files', () => {
    fc.assert(
      fc.property(mutated, (json) => useOrExplain(Buffer.from(JSON.stringify(json)))),
      { numRuns: 1000 },
    );
  });

  it('gives a UserError for damaged bytes', () => {
    const whole = Buffer.from(JSON.stringify(seeds[0]));
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.boolean(), (at, byte, truncate) => {
        const bytes = Buffer.from(truncate ? whole.subarray(0, at) : whole);
        if (!truncate) bytes[at] = byte;
        useOrExplain(bytes);
      }),
      { numRuns: 500 },
    );
  });
});
