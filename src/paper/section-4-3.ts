import { nodeTraffic } from '../plan/node-limited.js';
import { MODEL_PRESETS } from '../spec/presets.js';
import { parseModelShape } from '../spec/read-shape.js';
import { banded, figure, type Reproduction } from './row.js';

/** §4.3: what node-limited routing leaves of the traffic between nodes. */
export function section43(): Reproduction {
  const experts = parseModelShape(MODEL_PRESETS['deepseek-v3']).experts!;
  const traffic = nodeTraffic(experts);
  return {
    source: 'ISCA §4.3',
    title: 'Node-limited routing: transfers of one token over the network',
    figures: [
      banded('to every expert by itself', 't', 8, traffic.perExpert, 1e-9),
      banded('to every node once, at most', 't', 4, traffic.mostPerNode, 1e-9),
      figure('to every node once, on average', 't', null, traffic.meanPerNode),
      figure('saved on average', '%', null, 100 * (1 - traffic.meanPerNode / traffic.perExpert)),
    ],
    notes: ['t: time to send one token over the NIC; the average is of a router that chooses evenly'],
  };
}
