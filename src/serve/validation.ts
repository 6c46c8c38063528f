import type { z } from 'zod';
import { type ApiError, badRequest } from './errors.js';
import { UNSUPPORTED } from './schema.js';

type Issue = z.core.$ZodIssue;

/**
 * `body` as the schema says it must be.
 * @throws ApiError naming the first field that is wrong, in OpenAI's words and codes
 */
export function validate<Schema extends z.ZodType>(schema: Schema, body: object): z.infer<Schema> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  throw explain(innermost(result.error.issues[0]!, []), body);
}

/** Path and issue: of a union, what is wrong with the alternative that fits best, which is the one that got furthest. */
function innermost(issue: Issue, path: PropertyKey[]): { issue: Issue; path: PropertyKey[] } {
  const here = [...path, ...issue.path];
  if (issue.code !== 'invalid_union' || issue.errors.length === 0) return { issue, path: here };
  const firsts = issue.errors.map((issues) => issues[0]!);
  const deepest = firsts.reduce((best, other) => (other.path.length > best.path.length ? other : best));
  // All alternatives fail at the value itself: its type is wrong, and that is all there is to say.
  return deepest.path.length === 0 && deepest.code === 'invalid_type'
    ? { issue, path: here }
    : innermost(deepest, here);
}

function explain({ issue, path }: { issue: Issue; path: PropertyKey[] }, body: object): ApiError {
  const unknown = issue.code === 'unrecognized_keys' ? [...path, issue.keys[0]!] : undefined;
  const param = nameOf(unknown ?? path);
  if (UNSUPPORTED.has(param.split(/[.[]/)[0]!)) {
    const message = `Unsupported parameter: '${param}' is not supported by this server.`;
    return badRequest(message, param, 'unsupported_parameter');
  }
  if (unknown) return badRequest(`Unknown parameter: '${param}'.`, param, 'unknown_parameter');
  if (path.length > 0 && valueAt(body, path) === undefined)
    return badRequest(`Missing required parameter: '${param}'.`, param, 'missing_required_parameter');
  const [what, code] = problem(issue);
  return badRequest(`Invalid value for '${param}': ${what}.`, param, code);
}

/** What is wrong, and OpenAI's code for it. */
function problem(issue: Issue): [what: string, code: string] {
  switch (issue.code) {
    case 'invalid_type':
      return [`expected ${issue.expected}`, 'invalid_type'];
    case 'invalid_union':
      return issue.errors.length > 0
        ? ['it has the wrong type', 'invalid_type']
        : ['it is none of those known', 'invalid_value'];
    case 'too_big':
      return [
        `expected at most ${issue.maximum}${lengthOf(issue.origin)}`,
        `${kindOf(issue.origin)}_above_max_${measureOf(issue.origin)}`,
      ];
    case 'too_small':
      return [
        `expected at least ${issue.minimum}${lengthOf(issue.origin)}`,
        `${kindOf(issue.origin)}_below_min_${measureOf(issue.origin)}`,
      ];
    case 'invalid_value':
      return [`expected ${issue.values.map((value) => JSON.stringify(value)).join(' or ')}`, 'invalid_value'];
    default:
      return [issue.message, 'invalid_value'];
  }
}

const lengthOf = (origin: string): string =>
  origin === 'string' ? ' characters' : origin === 'array' ? ' elements' : '';

const measureOf = (origin: string): string => (lengthOf(origin) ? 'length' : 'value');

const kindOf = (origin: string): string => (origin === 'number' || origin === 'int' ? 'decimal' : origin);

/** A path as OpenAI writes it: `messages[0].content`. */
const nameOf = (path: readonly PropertyKey[]): string =>
  path.map((key, i) => (typeof key === 'number' ? `[${key}]` : `${i > 0 ? '.' : ''}${String(key)}`)).join('');

const valueAt = (body: unknown, path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>(
    (value, key) =>
      typeof value === 'object' && value !== null ? (value as Record<PropertyKey, unknown>)[key] : undefined,
    body,
  );
