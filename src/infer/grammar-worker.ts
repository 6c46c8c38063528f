/** The thread that XGrammar runs in; see grammar.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import type { TokenMask } from './sampler.js';
import { loadXGrammar, type XGrammarMatcher } from './xgrammar.js';

export interface GrammarVocabulary {
  /** Spelling by id; empty for tokens that stand for no text. */
  tokens: string[];
  type: 'byte_level' | 'byte_fallback';
  endTokens: number[];
}

export type GrammarRequest =
  /** A new constraint: a JSON schema, or any JSON object where it is absent. */
  | { type: 'start'; schema: string | undefined }
  | { type: 'accept'; constraint: number; tokens: number[] }
  | { type: 'dispose'; constraint: number };

export interface GrammarReply {
  id: number;
  /** Why there is no constraint. */
  problem?: string;
  constraint?: number;
  mask?: TokenMask;
  complete?: boolean;
}

/** Any JSON object, as OpenAI's `json_object` promises. */
const ANY_OBJECT = JSON.stringify({ type: 'object', additionalProperties: true });

/** White space between two parts of JSON at most: room for deep indentation, and an end to models that love blanks. Assumed. */
const MAX_WHITESPACE = 64;
/**
 * Keywords whose strings the library lets hold raw control characters, which JSON forbids; tokens with any are then left
 * out altogether, line ends between the parts with them.
 */
const LOOSE_STRINGS = /"(?:maxLength|minLength|pattern|format)"/;
/** Bytes 0..31 in the byte-level alphabet, as they are, and as SentencePiece spells them. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL = { byte_level: /[\u0100-\u011f]/, byte_fallback: /[\0-\x1f]|^<0x[01][0-9A-F]>$/ };

const { tokens, type, endTokens } = workerData as GrammarVocabulary;
const matchers = new Map<number, Matcher>();
let constraints = 0;
/** The library says why it gives up on standard error, before it aborts. */
let complaint = '';
console.error = (line: unknown) => {
  complaint ||= String(line);
};

interface Matcher {
  matcher: XGrammarMatcher;
  /** Tokens that are left out whatever the grammar says. */
  forbidden: TokenMask | undefined;
}

const withControls = tokens.reduce(
  (mask, token, id) => {
    if (CONTROL[type].test(token)) mask[id >> 5]! |= 1 << (id & 31);
    return mask;
  },
  new Int32Array(Math.ceil(tokens.length / 32)),
);

const compiler = createCompiler();

async function createCompiler() {
  const { TokenizerInfo, GrammarCompiler, GrammarMatcher } = await loadXGrammar();
  const info = await TokenizerInfo.createTokenizerInfo(tokens, type, false, tokens.length, endTokens);
  const compile = await GrammarCompiler.createGrammarCompiler(info);
  return async (schema: string): Promise<Matcher> => {
    const grammar = await compile.compileJSONSchema(schema, true, undefined, undefined, true, MAX_WHITESPACE);
    const matcher = await GrammarMatcher.createGrammarMatcher(grammar, undefined, endTokens.length === 0);
    return { matcher, forbidden: LOOSE_STRINGS.test(schema) ? withControls : undefined };
  };
}

async function answer(request: GrammarRequest): Promise<Omit<GrammarReply, 'id'> | undefined> {
  if (request.type === 'dispose') {
    matchers.get(request.constraint)?.matcher.dispose();
    matchers.delete(request.constraint);
    return undefined;
  }
  if (request.type === 'start') {
    const constraint = constraints++;
    matchers.set(constraint, await (await compiler)(request.schema ?? ANY_OBJECT));
    return { constraint, ...(await state(constraint)) };
  }
  const { matcher } = matchers.get(request.constraint)!;
  for (const token of request.tokens) {
    if (!matcher.acceptToken(token)) throw new Error(`the grammar does not allow token ${token}`);
  }
  return state(request.constraint);
}

async function state(constraint: number): Promise<{ mask: TokenMask; complete: boolean }> {
  const { matcher, forbidden } = matchers.get(constraint)!;
  if (matcher.isTerminated()) return { mask: new Int32Array(Math.ceil(tokens.length / 32)), complete: true };
  const mask = await matcher.getNextTokenBitmask();
  forbidden?.forEach((word, i) => {
    mask[i]! &= ~word;
  });
  return { mask, complete: onlyEndTokens(mask) };
}

function onlyEndTokens(mask: TokenMask): boolean {
  const rest = mask.slice();
  for (const id of endTokens) rest[id >> 5]! &= ~(1 << (id & 31));
  return rest.every((word) => word === 0);
}

/** "[FATAL] /path/file.cc:902: Unsupported type" without the path. */
const reason = (error: unknown): string => {
  const said = complaint.replace(/^.*?\.(?:cc|h):\d+:\s*/, '') || (error as Error).message;
  complaint = '';
  return said.trim();
};

// One after the other: each waits for the one before.
let last = Promise.resolve();
parentPort!.on('message', (request: GrammarRequest & { id: number }) => {
  last = last
    .then(() => answer(request))
    .then(
      (reply) => reply && parentPort!.postMessage({ id: request.id, ...reply }),
      (error) => parentPort!.postMessage({ id: request.id, problem: reason(error) }),
    );
});
