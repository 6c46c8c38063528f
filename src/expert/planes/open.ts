import { openRanks, type RankSettings } from '../ranks.js';
import { openMpi } from '../transport/mpi.js';
import type { Transport } from '../transport/transport.js';
import { bindToPlane } from './bind.js';
import { PlaneTransport } from './transport.js';

export interface PlaneSettings extends RankSettings {
  /** Network interfaces of a host, one on each plane of the network; ranks take them by turns. */
  planes?: readonly string[];
}

/** A transport that names the MPI library behind it. */
export type LaunchedTransport = Transport & { library: string };

/** Starts MPI for this rank, on its plane where the network has several. @throws UserError */
export function openOnPlanes(settings: PlaneSettings): LaunchedTransport {
  const { ranksPerNode, lostAfter, planes = [] } = settings;
  if (planes.length > 0) bindToPlane(planes);
  if (planes.length < 2) return openRanks(settings);
  const transport = openMpi({ perNode: ranksPerNode, silenceSeconds: lostAfter, planes: true });
  const onPlane = (text: string) => process.stderr.write(`fathom: ${text}\n`);
  const options = { planes: planes.length, lostAfterSeconds: transport.silenceSeconds, onPlane };
  try {
    return Object.assign(new PlaneTransport(transport, options), { library: transport.library });
  } catch (error) {
    transport.close();
    throw error;
  }
}
