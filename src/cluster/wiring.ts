/** Adds switches and cables to a graph. */
export interface Wiring {
  /** @returns the new switch */
  addSwitch(fields: { layer?: number; plane?: number; group?: number }): number;
  /** Lays `count` cables between two switches. */
  connect(a: number, b: number, count?: number): void;
}
