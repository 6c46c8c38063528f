// Completion times of flows by SimGrid's plain max-min model, for test/goldens/cluster/simgrid.json (make_simgrid.mjs).
// Input: lines "links N", N capacities and latencies, "flows M", then per flow: start bytes count link...
// Each flow has hosts of its own, so that only the given links are shared.
#include <cstdio>
#include <iostream>
#include <simgrid/s4u.hpp>
#include <string>
#include <vector>

namespace sg4 = simgrid::s4u;

int main(int argc, char** argv) {
  sg4::Engine engine(&argc, argv);
  auto* zone = sg4::create_full_zone("zone");
  std::string word;
  int link_count = 0;
  int flow_count = 0;
  std::cin >> word >> link_count;
  std::vector<const sg4::Link*> links;
  for (int i = 0; i < link_count; i++) {
    double capacity = 0;
    double latency = 0;
    std::cin >> capacity >> latency;
    links.push_back(zone->create_link("l" + std::to_string(i), capacity)->set_latency(latency)->seal());
  }
  std::cin >> word >> flow_count;
  std::vector<double> ends(flow_count);
  for (int f = 0; f < flow_count; f++) {
    double start = 0;
    double bytes = 0;
    int count = 0;
    std::cin >> start >> bytes >> count;
    auto* source = zone->create_host("s" + std::to_string(f), 1e9)->seal();
    auto* target = zone->create_host("t" + std::to_string(f), 1e9)->seal();
    std::vector<sg4::LinkInRoute> route;
    for (int i = 0; i < count; i++) {
      int link = 0;
      std::cin >> link;
      route.emplace_back(links[link]);
    }
    zone->add_route(source->get_netpoint(), target->get_netpoint(), nullptr, nullptr, route, false);
    sg4::Actor::create("f", source, [start, bytes, source, target, f, &ends] {
      sg4::this_actor::sleep_for(start);
      sg4::Comm::sendto(source, target, static_cast<uint64_t>(bytes));
      ends[f] = sg4::Engine::get_clock();
    });
  }
  zone->seal();
  engine.run();
  for (double end : ends) std::printf("%.17g\n", end);
  return 0;
}
