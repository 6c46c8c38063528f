import { decodeLimit, ISCA_DECODE, NVL72_BYTES_PER_SECOND } from '../plan/decode-limit.js';
import { speculativeSpeedup } from '../plan/speculation.js';
import { banded, figure, type Reproduction } from './row.js';
import type { StudySummary } from './studies.js';

/** Printed with four or five digits: half of the last one. */
const DIGITS = 1e-3;

/** §2.3.2: what the network leaves of decoding speed. */
export function section232(): Reproduction {
  const slow = decodeLimit(ISCA_DECODE);
  const fast = decodeLimit({ ...ISCA_DECODE, bytesPerSecond: NVL72_BYTES_PER_SECOND });
  return {
    source: 'ISCA §2.3.2',
    title: 'Limit of decoding speed by the network',
    figures: [
      banded('exchange at 50 GB/s', 'µs', 120.96, slow.exchangeSeconds * 1e6, DIGITS),
      banded('a layer, two micro-batches', 'µs', 241.92, slow.layerSeconds * 1e6, DIGITS),
      banded('time per output token', 'ms', 14.76, slow.tokenSeconds * 1e3, DIGITS),
      banded('tokens per second', '1/s', 67, slow.tokensPerSecond, 0.012),
      banded('exchange at 900 GB/s (NVL72)', 'µs', 6.72, fast.exchangeSeconds * 1e6, DIGITS),
      banded('time per output token, NVL72', 'ms', 0.82, fast.tokenSeconds * 1e3, 0.002),
      banded('tokens per second, NVL72', '1/s', 1200, fast.tokensPerSecond, 0.02),
    ],
    notes: [
      'hidden 7,000 ("about 7K"), 32 tokens, 9 destinations, 1 + 2 bytes; the paper cuts 67.76 down to 67',
    ],
  };
}

/** §2.3.3: what drafts by MTP gain. @param studies those with a metric of acceptance, from real runs of the engine */
export function section233(studies: readonly StudySummary[]): Reproduction {
  const measured = studies.flatMap(({ study, variants }) =>
    variants.flatMap(({ name, metrics }) => {
      const acceptance = metrics.mtpAcceptance?.mean.mean;
      return acceptance === undefined ? [] : [{ label: `${study.name}, ${name}`, acceptance }];
    }),
  );
  return {
    source: 'ISCA §2.3.3',
    title: 'Multi-token prediction as draft',
    figures: [
      banded('speed-up at 80 % acceptance', '×', 1.8, speculativeSpeedup(0.8), 0.01),
      figure('speed-up at 90 % acceptance', '×', null, speculativeSpeedup(0.9)),
      ...measured.flatMap(({ label, acceptance }) => [
        figure(`acceptance measured here: ${label}`, '%', null, 100 * acceptance),
        figure(`speed-up that follows: ${label}`, '×', null, speculativeSpeedup(acceptance)),
      ]),
    ],
    notes: [
      'the paper measures 80 to 90 % on DeepSeek-V3; models that train here in minutes predict less',
      ...(measured.length === 0 ? ['no study with a metric of acceptance is committed'] : []),
    ],
  };
}
