import { Random } from '../../numerics/random.js';
import type { PacketSpec } from '../../spec/packet.js';
import { ENDPOINT_CABLE, FABRIC_CABLE, type Network } from '../graph.js';
import { FLIGHT, PORT, type Ports } from './ports.js';

/**
 * Bit errors of cables and the link's own retry, go-back-N: the receiver finds the damage when the packet is in, asks for it
 * again, and drops what came in between. So the cable is lost from the damaged packet's start until the request is there.
 */
export class LinkErrors {
  retries = 0;
  private readonly random: Random;
  /** [C] of those that have errors: cables of NICs and between switches. */
  private readonly exposed: Uint8Array;
  /** Logarithm of a bit's chance to be sound. */
  private readonly logSound: number;

  constructor(
    network: Network,
    private readonly ports: Ports,
    { bitErrorRate, seed }: PacketSpec,
  ) {
    this.random = Random.stream(seed, 'bit errors');
    this.logSound = Math.log1p(-bitErrorRate);
    this.exposed = Uint8Array.from({ length: 2 * network.cableCount }, (_, c) => {
      const kind = network.cableKind[c >> 1];
      return kind === ENDPOINT_CABLE || kind === FABRIC_CABLE ? 1 : 0;
    });
  }

  /** @returns picoseconds by which damaged copies hold up a packet that would begin now */
  delay(channel: number, bytes: number, serial: number): number {
    if (this.exposed[channel] === 0) return 0;
    const sound = Math.exp(8 * bytes * this.logSound);
    let delay = 0;
    while (this.random.uniform() >= sound) {
      this.retries++;
      delay += serial + 2 * this.ports.doubles[channel * PORT + FLIGHT]!;
    }
    return delay;
  }
}
