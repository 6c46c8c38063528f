/** `inspect` of a model that the engine does not run: what its `config.json` says, and what follows from it. */
import { cacheBytesPerToken } from '../plan/cache.js';
import { countShape, MODEL_PARTS, type ModelPart } from '../plan/parameters.js';
import { list, table } from '../report/table.js';
import { bytes, count } from '../report/units.js';
import type { ModelShape } from '../spec/shape.js';
import { PART_NAMES } from './part-names.js';
import type { Outcome } from './session.js';

/** Parameters and cache of a shape, for machines and for people. */
export function inspectShape(source: string, shape: ModelShape): Outcome {
  const parameters = countShape(shape);
  const cache = cacheBytesPerToken(shape);
  const text = [list(overview(source, shape, parameters, cache)), partTable(parameters.byPart)].join('\n\n');
  return { json: { source, parameters, cacheBytesPerToken: cache, shape }, text };
}

function overview(
  source: string,
  shape: ModelShape,
  { total, active }: { total: number; active: number },
  cache: number,
): [string, string][] {
  const { attention: a, experts: e } = shape;
  const heads = `${a.kind.toUpperCase()}, ${a.heads} heads of ${a.keyDepth}, values ${a.valueDepth}`;
  const kept = a.kind === 'mla' ? `key-value latent ${a.latent}` : `${a.keyValueHeads} key-value heads`;
  return [
    ['model', `${source} (${shape.modelType}), from its config.json only`],
    ['layers', `${shape.layers}; hidden ${shape.hiddenSize}`],
    ['attention', `${heads}; ${kept}`],
    ...(e
      ? ([['experts', `${e.perToken} of ${e.routed}, ${e.shared} shared, width ${e.width}`]] as [
          string,
          string,
        ][])
      : []),
    ['vocabulary', `${shape.vocabSize}${shape.tiedEmbeddings ? ', embedding and head tied' : ''}`],
    ['context', `${shape.maxLength} tokens`],
    ['parameters', `${count(total)} total, ${count(active)} active per token`],
    ['cache', `${bytes(cache)} per token in BF16`],
  ];
}

function partTable(parts: Record<ModelPart, { total: number; active: number }>): string {
  const right = (title: string) => ({ title, align: 'right' as const });
  const rows = MODEL_PARTS.filter((part) => parts[part].total > 0).map((part) => [
    PART_NAMES[part],
    count(parts[part].total),
    count(parts[part].active),
  ]);
  return table([{ title: 'part' }, right('parameters'), right('active')], rows);
}
