// All flows of an all-to-all at once by SimGrid's plain max-min model, beside fathom's flow engine.
//   g++ -O2 -std=c++17 -o simgrid bench/peers/simgrid.cc -lsimgrid        (Debian: libsimgrid-dev)
//   ./simgrid WAY --cfg=... < problem      WAY: flow, source, one, detached
// Input: "links N", N capacities; "hosts N"; "flows M", then per flow: source target bytes count link...
// Output: processor seconds of the run, resident bytes, then the end of every flow.
#include <sys/resource.h>

#include <cstdio>
#include <iostream>
#include <simgrid/s4u.hpp>
#include <string>
#include <vector>

namespace sg4 = simgrid::s4u;

struct Flow {
  int source, target;
  double bytes;
};

static double processor_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_utime.tv_usec * 1e-6;
}

static std::vector<const sg4::Link*> read_links(sg4::NetZone* zone) {
  std::string word;
  int count = 0;
  std::cin >> word >> count;
  std::vector<const sg4::Link*> links;
  for (int i = 0; i < count; i++) {
    double capacity = 0;
    std::cin >> capacity;
    links.push_back(zone->create_link("l" + std::to_string(i), capacity)->set_latency(0)->seal());
  }
  return links;
}

static std::vector<Flow> read_flows(sg4::NetZone* zone, const std::vector<sg4::Host*>& hosts,
                                    const std::vector<const sg4::Link*>& links) {
  std::string word;
  int count = 0;
  std::cin >> word >> count;
  std::vector<Flow> flows(count);
  for (auto& flow : flows) {
    int length = 0;
    std::cin >> flow.source >> flow.target >> flow.bytes >> length;
    std::vector<sg4::LinkInRoute> route;
    for (int i = 0; i < length; i++) {
      int link = 0;
      std::cin >> link;
      route.emplace_back(links[link]);
    }
    zone->add_route(hosts[flow.source]->get_netpoint(), hosts[flow.target]->get_netpoint(), nullptr, nullptr, route,
                    false);
  }
  return flows;
}

int main(int argc, char** argv) {
  sg4::Engine engine(&argc, argv);
  const std::string way = argc > 1 ? argv[1] : "source";
  auto* zone = sg4::create_full_zone("zone");
  const auto links = read_links(zone);
  std::string word;
  int host_count = 0;
  std::cin >> word >> host_count;
  std::vector<sg4::Host*> hosts;
  for (int h = 0; h < host_count; h++) hosts.push_back(zone->create_host("h" + std::to_string(h), 1e9)->seal());
  const auto flows = read_flows(zone, hosts, links);
  zone->seal();

  std::vector<sg4::CommPtr> comms(flows.size());
  const auto post = [&](const std::vector<size_t>& own) {
    std::vector<sg4::CommPtr> pending;
    for (size_t f : own) {
      comms[f] = sg4::Comm::sendto_init(hosts[flows[f].source], hosts[flows[f].target]);
      comms[f]->set_payload_size(static_cast<uint64_t>(flows[f].bytes));
      if (way == "detached") {
        comms[f]->detach();
      } else {
        comms[f]->start();
        pending.push_back(comms[f]);
      }
    }
    sg4::Comm::wait_all(pending);
  };
  std::vector<std::vector<size_t>> posters;
  if (way == "flow") posters.resize(flows.size());
  else posters.resize(way == "one" || way == "detached" ? 1 : host_count);
  for (size_t f = 0; f < flows.size(); f++) {
    const size_t by = way == "flow" ? f : posters.size() == 1 ? 0 : flows[f].source;
    posters[by].push_back(f);
  }
  for (const auto& own : posters)
    if (!own.empty()) sg4::Actor::create("p", hosts[flows[own[0]].source], [&post, &own] { post(own); });

  const double before = processor_seconds();
  engine.run();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("%.6f %ld\n", processor_seconds() - before, usage.ru_maxrss * 1024L);
  for (const auto& comm : comms) std::printf("%.17g\n", comm->get_finish_time());
  return 0;
}
