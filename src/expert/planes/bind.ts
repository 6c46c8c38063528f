import { hostname, networkInterfaces } from 'node:os';
import { UserError } from '../../errors.js';
import { launchedPlace } from '../transport/addon.js';

/** A device of InfiniBand or RoCE as UCX names it, with its port: `mlx5_0:1`. */
const UCX_DEVICE = /:\d+$/;
/** An interface of the system, which is neither that nor a network in CIDR notation. */
const INTERFACE = /^[^:/]+$/;

/**
 * Gives this process, before MPI starts, the network interface of its plane: its place among the ranks of its host, modulo
 * planes [ISCA §5.1, Figure 4: each GPU has a NIC, and each NIC is on one plane].
 * @param planes interfaces of a host, one on each plane, in the same order on every host; or networks such as 10.1.0.0/16
 * @throws UserError where the host has no such interface
 */
export function bindToPlane(
  planes: readonly string[],
  environment: NodeJS.ProcessEnv = process.env,
  present: readonly string[] = Object.keys(networkInterfaces()),
): void {
  const own = planes[launchedPlace(environment) % planes.length]!;
  if (INTERFACE.test(own) && !present.includes(own)) {
    throw new UserError(
      `--planes names ${own}, which is no network interface with an address on ${hostname()}; it has ${present.join(', ')}`,
    );
  }
  environment.UCX_NET_DEVICES = own;
  if (!UCX_DEVICE.test(own)) environment.OMPI_MCA_btl_tcp_if_include = own;
}
