import type { FlowTimes } from '../flow-engine.js';

/** What happened to packets. */
export interface PacketStats {
  packets: number;
  /** Cables crossed by packets, all together. */
  hops: number;
  virtualChannels: number;
  /** Most packets on their way at once, and bytes of records for each: the packets themselves, credits on their way back, timers. */
  mostInFlight: number;
  bytesPerPacket: number;
  /** Most bytes that waited at a port, and which (channel; -1 where none did). */
  mostQueuedBytes: number;
  mostQueuedChannel: number;
  /** With PFC: pauses asked for, and the most that a pausing buffer held. */
  pauses: number;
  mostHeldBytes: number;
  marks: number;
  /** Cuts of a sender's rate or window. */
  cuts: number;
  /** Packets that a link sent again. */
  retries: number;
  /** Packets that arrived after a later one of their flow, and the most places that one was late. */
  overtaken: number;
  mostLatePlaces: number;
  /** By priority, most urgent first: the longest wait at a port in seconds, where, and of which flow (-1: none waited). */
  waits: { seconds: number; channel: number; flow: number }[];
}

export interface PacketTimes extends FlowTimes {
  /** [C] bytes that passed each channel. */
  passed: Float64Array;
  stats: PacketStats;
}

export const emptyStats = (virtualChannels: number, priorities: number): PacketStats => ({
  packets: 0,
  hops: 0,
  virtualChannels,
  mostInFlight: 0,
  bytesPerPacket: 0,
  mostQueuedBytes: 0,
  mostQueuedChannel: -1,
  pauses: 0,
  mostHeldBytes: 0,
  marks: 0,
  cuts: 0,
  retries: 0,
  overtaken: 0,
  mostLatePlaces: 0,
  waits: Array.from({ length: priorities }, () => ({ seconds: 0, channel: -1, flow: -1 })),
});
