import { describe, expect, it } from 'vitest';
import { parseCluster, parseMachine } from '../../src/spec/machine.js';
import { MACHINES, machineNamed } from '../../src/spec/machines.js';

describe('machines', () => {
  it.each(Object.keys(MACHINES))('%s is a valid Machine file', (name) => {
    expect(parseMachine(JSON.parse(JSON.stringify(MACHINES[name])))).toEqual(MACHINES[name]);
  });

  it('lists the known ones', () => {
    expect(() => machineNamed('h900')).toThrow(/"h900" is not known; take one of h800, .*gb200-nvl72/);
  });

  it('names a constant that is missing', () => {
    const { memoryBytesPerSecond: _, ...device } = MACHINES.h800!.device;
    expect(() => parseMachine({ ...MACHINES.h800, device }, 'mine.json')).toThrow(
      /mine\.json: the constant device\.memoryBytesPerSecond is missing/,
    );
  });

  it('wants a source for every constant', () => {
    const device = { ...MACHINES.h800!.device, units: { value: 132 } };
    expect(() => parseMachine({ ...MACHINES.h800, device })).toThrow(/device\.units\.source is missing/);
  });
});

describe('clusters', () => {
  it('are a machine, nodes and what differs', () => {
    const { machine, nodes } = parseCluster(
      { machine: 'h800', nodes: 4, scaleOutBytesPerSecond: 100e9, dollarsPerDeviceHour: 3 },
      'mine.json',
      machineNamed,
    );
    expect(nodes).toBe(4);
    expect(machine.node.scaleOut!.effectiveBytesPerSecond.value).toBe(80e9);
    expect(machine.kernels.exchange!.points[3]!.dispatchBytesPerSecond).toBe(102e9);
    expect(machine.device.dollarsPerHour).toEqual({ value: 3, source: 'stated in mine.json' });
    expect(MACHINES.h800!.node.scaleOut!.bytesPerSecond.value).toBe(50e9);
  });

  it.each([
    [{ machine: 'h800', nodes: 0 }, /mine\.json: field nodes/],
    [{ machine: 'h800', nodes: 1, gpus: 8 }, /unknown field "gpus"/],
    [{ machine: 'x', nodes: 1 }, /machine "x" is not known/],
  ])('%j cannot be', (json, message) => {
    expect(() => parseCluster(json, 'mine.json', machineNamed)).toThrow(message);
  });
});
