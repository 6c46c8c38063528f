import { crc32 } from 'node:zlib';
import { UserError } from '../errors.js';
import type { Team } from '../expert/team.js';
import type { Parameter } from '../tensor/parameter.js';
import { isExpert } from './sharded-optimizer.js';
import type { Trainer } from './trainer.js';

/**
 * Compares what ranks hold in common, bit for bit: parameters that all have, and experts that ranks of different groups have.
 * A difference is silent corruption of memory, of a computation or of a message [ISCA §6.1].
 * @throws UserError on rank 0, naming the ranks
 */
export async function checkReplicas(team: Team, trainer: Trainer): Promise<void> {
  const parameters = [...trainer.model.parameters.values()];
  const digest = Int32Array.of(
    checksum(parameters.filter((p) => !isExpert(p))),
    checksum(parameters.filter(isExpert)),
  );
  const every = team
    .gather(new Uint8Array(digest.buffer))
    .map((bytes) => new Int32Array(bytes.slice().buffer));
  const { size } = team.layout;
  const common = every.map(([dense]) => dense!);
  const strangers = new Set([
    ...outvoted(common),
    ...Array.from({ length: size }, (_, index) => {
      const group = every.flatMap(([, experts], rank) => (rank % size === index ? [experts!] : []));
      return outvoted(group).map((place) => place * size + index);
    }).flat(),
  ]);
  await team.together(() => {
    if (strangers.size === 0 || !team.leads) return;
    const { hosts } = team.transport.placement;
    const names = [...strangers].sort((a, b) => a - b).map((rank) => `rank ${rank} on ${hosts[rank]}`);
    throw new UserError(
      `after step ${trainer.step} the parameters of ${names.join(', ')} differ from those of the ranks that should hold the same: ` +
        'memory, a computation or a message was corrupted; resume from the last checkpoint, on other hosts if it happens again',
    );
  });
}

const checksum = (parameters: readonly Parameter[]): number =>
  parameters.reduce((sum, { value: { data } }) => {
    return crc32(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), sum);
  }, 0) | 0;

/** Places whose value is not the most frequent one, the first of equals. */
function outvoted(values: readonly number[]): number[] {
  const votes = new Map<number, number>();
  for (const value of values) votes.set(value, (votes.get(value) ?? 0) + 1);
  const [winner] = [...votes].reduce((best, vote) => (vote[1] > best[1] ? vote : best));
  return values.flatMap((value, place) => (value === winner ? [] : [place]));
}
