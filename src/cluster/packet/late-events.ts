/** Records by time in a binary heap; those of a time in the order in which they were pushed. */
export class LateEvents {
  private count = 0;
  private pushed = 0;
  /** [capacity] picoseconds, order of pushing, record. */
  private times = new Float64Array(256);
  private order = new Float64Array(256);
  private ids = new Int32Array(256);

  /** Picoseconds; Infinity where there is none. */
  get nextTime(): number {
    return this.count > 0 ? this.times[0]! : Infinity;
  }

  push(id: number, time: number): void {
    if (this.count === this.ids.length) this.grow();
    const order = this.pushed++;
    let at = this.count++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.times[parent]! <= time) break;
      this.move(parent, at);
      at = parent;
    }
    this.set(at, id, time, order);
  }

  /** @returns the record of the least time; there must be one */
  pop(): number {
    const id = this.ids[0]!;
    const last = --this.count;
    const [time, order] = [this.times[last]!, this.order[last]!];
    let at = 0;
    for (let child = 1; child < last; child = 2 * at + 1) {
      if (child + 1 < last && this.isBefore(child + 1, this.times[child]!, this.order[child]!)) child++;
      if (!this.isBefore(child, time, order)) break;
      this.move(child, at);
      at = child;
    }
    this.set(at, this.ids[last]!, time, order);
    return id;
  }

  private isBefore(at: number, time: number, order: number): boolean {
    return this.times[at]! < time || (this.times[at] === time && this.order[at]! < order);
  }

  private move(from: number, to: number): void {
    this.set(to, this.ids[from]!, this.times[from]!, this.order[from]!);
  }

  private set(at: number, id: number, time: number, order: number): void {
    this.ids[at] = id;
    this.times[at] = time;
    this.order[at] = order;
  }

  private grow(): void {
    const [times, order, ids] = [this.times, this.order, this.ids];
    this.times = new Float64Array(2 * this.count);
    this.order = new Float64Array(2 * this.count);
    this.ids = new Int32Array(2 * this.count);
    this.times.set(times);
    this.order.set(order);
    this.ids.set(ids);
  }
}
