import { dirname, resolve } from 'node:path';
import { UserError } from '../errors.js';
import { NETWORK_PRESETS, type NetworkPreset } from '../spec/network-presets.js';
import type { Scenario, Traffic } from '../spec/scenario.js';

/** What commands say of their operand. */
export const SCENARIO = `a scenario file (JSON), or one of: ${Object.keys(NETWORK_PRESETS).join(', ')}`;

/** A scenario from a file or by a preset's name, with captured choices read. @throws UserError naming file and field */
export async function openScenario(given: string): Promise<Scenario> {
  const { existsSync } = await import('node:fs');
  const { readJsonFile } = await import('../files.js');
  const { parseScenario } = await import('../spec/scenario.js');
  if (existsSync(given)) return withCaptures(parseScenario(readJsonFile(given), given), dirname(given));
  if (!Object.hasOwn(NETWORK_PRESETS, given)) {
    throw new UserError(
      `there is no scenario ${given}: name a file, or one of ${Object.keys(NETWORK_PRESETS).join(', ')}`,
    );
  }
  return parseScenario(NETWORK_PRESETS[given as NetworkPreset], `preset ${given}`);
}

/** Folders of runs are as seen from the scenario's file. */
async function withCaptures(scenario: Scenario, folder: string): Promise<Scenario> {
  if (!scenario.workload) return scenario;
  const { readCapturedChoices } = await import('../train/captured-choices.js');
  const workload = scenario.workload.map((traffic): Traffic => {
    if (!('capture' in traffic) || traffic.capture === undefined) return traffic;
    if (traffic.choices) {
      throw new UserError('field workload.capture: choices are given as well; leave one of them out');
    }
    const { capture, ...rest } = traffic;
    const { choices, experts, hidden } = readCapturedChoices(resolve(folder, capture.run), capture);
    return { ...rest, choices, experts: rest.experts ?? experts, hidden: rest.hidden ?? hidden };
  });
  return { ...scenario, workload };
}
