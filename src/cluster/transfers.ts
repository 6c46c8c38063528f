/** What a workload sends, before it is known which way it goes. */
export interface Transfer {
  /** Endpoints, by number. */
  from: number;
  to: number;
  bytes: number;
  /** Seconds: the earliest begin, or the wait after the last of `after`. */
  start?: number;
  /** Transfers, by number, that must have ended before. */
  after?: readonly number[];
  weight?: number;
  /** Bytes per second. */
  cap?: number;
  /** Tells transfers between the same endpoints apart. */
  key?: number;
  /** One endpoint to several, copied in switches, or several to one, summed there [ISCA §6.5]; else one to one. */
  tree?: { kind: 'multicast' | 'reduce'; parts: TreePart[] };
}

/** Bytes that all of these endpoints get, or that the sum of what they send has; the root is no end. */
export interface TreePart {
  ends: readonly number[];
  bytes: number;
}

/** A piece of traffic, ready to be routed. */
export interface Workload {
  name: string;
  transfers: Transfer[];
  ranks: number;
  /** Bytes by which the piece's bandwidth is reckoned: as the benchmark of its kind does. */
  bytesPerRank: number;
  /** Bus bandwidth over algorithm bandwidth [nccl-tests, doc/PERFORMANCE.md]. */
  busFactor: number;
}

/** What workloads need to know of a network. */
export interface Places {
  endpoints: number;
  gpusPerNode: number;
  /** Rail or plane of each endpoint's NIC. */
  railOf: (endpoint: number) => number;
  /** Whether flows change rails within nodes, and what the first byte takes for that. */
  pxn: boolean;
  relaySeconds: number;
}
