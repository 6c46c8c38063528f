// MPI as JavaScript sees it. Every message function takes a communicator (0 is the world) and typed arrays, which the
// caller leaves alone until `wait` has returned; all but those named so are non-blocking and return a request.
//
//   start() -> {rank, size, hosts: [name of each rank's], library}
//   split(comm, colour, key) -> comm           collective and blocking
//   sharedMemory(comm, bytes) -> ArrayBuffer   collective and blocking; the members' pieces, one after the other
//   send, receive, broadcast, barrier, allReduce, reduceScatter, allGather, allToAll -> request
//   wait(request) -> bytes received;  done(request);  counterAdd, counterWait
//   listen: a receive that may stay open;  counterReach, awaitNews(since, milliseconds): waits that end
//   silence(rank) -> seconds since anything was heard of it
//   usePlanes(perNode), linkSilence(rank) -> seconds: of networks with planes
//   allToAllSeconds: MPI's own blocking exchange, timed
#define FATHOM_ISA_NS mpi
#include "../bind.h"

#include <algorithm>
#include <climits>

#include "engine.h"

namespace fathom {
namespace {

/// Bytes of a cache line.
constexpr int64_t kLine = 64;

Engine& engine() { return Engine::get(); }

int bytes_per_element(DType dtype) {
  switch (dtype) {
    case DType::u8: return 1;
    case DType::bf16: return 2;
    case DType::f64: return 8;
    default: return 4;
  }
}

MPI_Datatype mpi_type(const char* op, DType dtype) {
  switch (dtype) {
    case DType::u8: return MPI_BYTE;
    case DType::bf16: return MPI_UINT16_T;
    case DType::i32: return MPI_INT32_T;
    case DType::f32: return MPI_FLOAT;
    case DType::f64: return MPI_DOUBLE;
    default: fail(op, "needs a typed array");
  }
}

int count_of(const char* op, const Span& span) {
  if (!span) fail(op, "needs a typed array");
  if (span.length > INT_MAX) fail(op, "one message takes at most 2^31 elements");
  return static_cast<int>(span.length);
}

MPI_Op mpi_op(const char* op, const std::string& name) {
  if (name == "sum") return MPI_SUM;
  if (name == "max") return MPI_MAX;
  if (name == "min") return MPI_MIN;
  fail(op, "unknown reduction " + name);
}

/// Counts and displacements of a vector collective; checks that they fit `span`.
struct Pieces {
  std::vector<int> counts, starts;

  Pieces(const char* op, const std::vector<int64_t>& sizes, const Span& span) {
    int64_t total = 0;
    for (const int64_t size : sizes) {
      if (size < 0 || total + size > INT_MAX) fail(op, "one call takes at most 2^31 elements");
      starts.push_back(static_cast<int>(total));
      counts.push_back(static_cast<int>(size));
      total += size;
    }
    span.require(op, "the array", total);
  }
};

int64_t send(int comm, Span data, int to, int tag) {
  const int count = count_of("send", data);
  const MPI_Datatype type = mpi_type("send", data.dtype);
  const MPI_Comm c = engine().comm(comm);
  return engine().submit([=](MPI_Request* r) { return MPI_Isend(data.data, count, type, to, tag, c, r); });
}

/// `counter`[index] is raised by `delta` when the message is there, without JavaScript.
int64_t receive(int comm, Span into, int from, int tag, Span counter, int64_t index, int delta) {
  const int count = count_of("receive", into);
  const MPI_Datatype type = mpi_type("receive", into.dtype);
  const MPI_Comm c = engine().comm(comm);
  Signal signal;
  if (counter) signal = {{counter.as<int32_t>("receive", "counter", index + 2) + index}, delta};
  return engine().submit([=](MPI_Request* r) { return MPI_Irecv(into.data, count, type, from, tag, c, r); }, signal);
}

/// A receive that may stay open for ever.
int64_t listen(int comm, Span into, int from, int tag) {
  const int count = count_of("listen", into);
  const MPI_Datatype type = mpi_type("listen", into.dtype);
  const MPI_Comm c = engine().comm(comm);
  return engine().submit([=](MPI_Request* r) { return MPI_Irecv(into.data, count, type, from, tag, c, r); }, {}, true);
}

int64_t broadcast(int comm, Span data, int root) {
  const int count = count_of("broadcast", data);
  const MPI_Datatype type = mpi_type("broadcast", data.dtype);
  const MPI_Comm c = engine().comm(comm);
  return engine().submit([=](MPI_Request* r) { return MPI_Ibcast(data.data, count, type, root, c, r); });
}

int64_t barrier(int comm) {
  const MPI_Comm c = engine().comm(comm);
  return engine().submit([=](MPI_Request* r) { return MPI_Ibarrier(c, r); });
}

/// In place.
int64_t all_reduce(int comm, Span data, std::string name) {
  const int count = count_of("allReduce", data);
  const MPI_Datatype type = mpi_type("allReduce", data.dtype);
  const MPI_Op op = mpi_op("allReduce", name);
  const MPI_Comm c = engine().comm(comm);
  return engine().submit([=](MPI_Request* r) { return MPI_Iallreduce(MPI_IN_PLACE, data.data, count, type, op, c, r); });
}

/// Sums; member i gets counts[i] elements.
int64_t reduce_scatter(int comm, Span in, Span out, std::vector<int64_t> sizes) {
  const Pieces pieces("reduceScatter", sizes, in);
  const MPI_Datatype type = mpi_type("reduceScatter", in.dtype);
  const MPI_Comm c = engine().comm(comm);
  return engine().submit([=](MPI_Request* r) {
    return MPI_Ireduce_scatter(in.data, out.data, pieces.counts.data(), type, MPI_SUM, c, r);
  });
}

int64_t all_gather(int comm, Span in, Span out, std::vector<int64_t> sizes) {
  const Pieces pieces("allGather", sizes, out);
  const int count = count_of("allGather", in);
  const MPI_Datatype type = mpi_type("allGather", in.dtype);
  const MPI_Comm c = engine().comm(comm);
  return engine().submit([=](MPI_Request* r) {
    return MPI_Iallgatherv(in.data, count, type, out.data, pieces.counts.data(), pieces.starts.data(), type, c, r);
  });
}

int64_t all_to_all(int comm, Span in, std::vector<int64_t> in_sizes, Span out, std::vector<int64_t> out_sizes) {
  const Pieces from("allToAll", in_sizes, in), to("allToAll", out_sizes, out);
  const MPI_Datatype type = mpi_type("allToAll", in.dtype);
  const MPI_Comm c = engine().comm(comm);
  return engine().submit([=](MPI_Request* r) {
    return MPI_Ialltoallv(in.data, from.counts.data(), from.starts.data(), type, out.data, to.counts.data(), to.starts.data(), type, c, r);
  });
}

/// Seconds that MPI_Alltoallv takes, median of `rounds`, on MPI's thread without JavaScript in between.
double all_to_all_seconds(int comm, Span in, std::vector<int64_t> in_sizes, Span out, std::vector<int64_t> out_sizes, int rounds) {
  const Pieces from("allToAllSeconds", in_sizes, in), to("allToAllSeconds", out_sizes, out);
  const MPI_Datatype type = mpi_type("allToAllSeconds", in.dtype);
  const MPI_Comm c = engine().comm(comm);
  std::vector<double> seconds;
  engine().run("MPI_Alltoallv", [&] {
    for (int round = 0; round < rounds; ++round) {
      MPI_Barrier(c);
      const double started = MPI_Wtime();
      const int code = MPI_Alltoallv(in.data, from.counts.data(), from.starts.data(), type, out.data, to.counts.data(), to.starts.data(), type, c);
      if (code != MPI_SUCCESS) return code;
      seconds.push_back(MPI_Wtime() - started);
    }
    return static_cast<int>(MPI_SUCCESS);
  });
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

int64_t wait(int64_t request) { return engine().wait(request); }
bool done(int64_t request) { return engine().done(request); }

void counter_add(Span counter, int64_t index, int delta) {
  Counter{counter.as<int32_t>("counterAdd", "counter", index + 2) + index}.add(delta);
}

void counter_wait(Span counter, int64_t index, double target) {
  const Counter at{counter.as<int32_t>("counterWait", "counter", index + 2) + index};
  engine().wait_counter(at, static_cast<int32_t>(static_cast<uint32_t>(static_cast<int64_t>(target))));
}

bool counter_reach(Span counter, int64_t index, double target, int milliseconds) {
  const Counter at{counter.as<int32_t>("counterReach", "counter", index + 2) + index};
  return engine().wait_counter(at, static_cast<int32_t>(static_cast<uint32_t>(static_cast<int64_t>(target))), milliseconds);
}

int64_t news() { return engine().news(); }
void wait_news(int64_t since, int milliseconds) { engine().wait_news(since, milliseconds); }
void use_planes(int per_node) { engine().use_planes(per_node); }
double silence(int peer) { return engine().silent_seconds(peer); }
double link_silence(int peer) { return engine().link_silence_seconds(peer); }

int split(int comm, int colour, int key) {
  const MPI_Comm from = engine().comm(comm);
  MPI_Comm part = MPI_COMM_NULL;
  engine().run("MPI_Comm_split", [&] {
    const int code = MPI_Comm_split(from, colour, key, &part);
    if (code == MPI_SUCCESS) MPI_Comm_set_errhandler(part, MPI_ERRORS_RETURN);
    return code;
  });
  return engine().add_comm(part);
}

void set_silence_limit(double seconds) { engine().silence_limit_seconds = seconds; }
void finish() { engine().finish(); }
void abort_all(int code) { engine().abort(code); }

napi_value shared_memory(napi_env env, napi_callback_info info) {
  try {
    napi_value values[2], result;
    call_info(env, info, 2, values);
    int comm = 0;
    int64_t bytes = 0;
    read_argument({env, values[0], "sharedMemory", 0}, comm);
    read_argument({env, values[1], "sharedMemory", 1}, bytes);
    const MPI_Comm c = engine().comm(comm);
    void* base = nullptr;
    int members = 1;
    MPI_Comm_size(c, &members);
    int place = 0;
    MPI_Comm_rank(c, &place);
    // MPI may begin anywhere: the first asks for a line more, so that pieces begin where lines do.
    const int64_t asked = place == 0 ? bytes + kLine : bytes;
    engine().run(("allocating " + std::to_string(bytes) + " bytes of shared memory for each rank").c_str(), [&] {
      MPI_Win window;
      void* own = nullptr;
      const int code = MPI_Win_allocate_shared(asked, 1, MPI_INFO_NULL, c, &own, &window);
      if (code != MPI_SUCCESS) return code;
      MPI_Aint size = 0;
      int unit = 0;
      // Lives as long as the process: pieces lie one after the other, so that the first is where all begin.
      return MPI_Win_shared_query(window, 0, &size, &unit, &base);
    });
    const auto first = reinterpret_cast<uintptr_t>(base);
    base = reinterpret_cast<void*>((first + kLine - 1) / kLine * kLine);
    const size_t total = static_cast<size_t>(bytes) * static_cast<size_t>(members);
    if (napi_create_external_arraybuffer(env, base, total, nullptr, nullptr, &result) != napi_ok) {
      fail("sharedMemory", "the JavaScript engine refused a buffer of " + std::to_string(total) + " bytes");
    }
    return result;
  } catch (...) {
    rethrow_to_js(env);
    return nullptr;
  }
}

napi_value start(napi_env env, napi_callback_info) {
  try {
    engine().start();
  } catch (...) {
    rethrow_to_js(env);
    return nullptr;
  }
  napi_value result, hosts, library;
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "rank", write_result(env, static_cast<double>(engine().rank)));
  napi_set_named_property(env, result, "size", write_result(env, static_cast<double>(engine().size)));
  napi_create_array(env, &hosts);
  for (int r = 0; r < engine().size; ++r) {
    napi_value name;
    napi_create_string_utf8(env, engine().hosts[static_cast<size_t>(r)].c_str(), NAPI_AUTO_LENGTH, &name);
    napi_set_element(env, hosts, static_cast<uint32_t>(r), name);
  }
  napi_set_named_property(env, result, "hosts", hosts);
  napi_create_string_utf8(env, engine().library.c_str(), NAPI_AUTO_LENGTH, &library);
  napi_set_named_property(env, result, "library", library);
  return result;
}

}  // namespace
}  // namespace fathom

NAPI_MODULE_INIT() {
  using namespace fathom;
  const Exports target{env, exports};
  add_function(target, "start", start, nullptr);
  add_function(target, "sharedMemory", shared_memory, nullptr);
  using mpi::bind;
  bind(target, "split", split);
  bind(target, "send", send);
  bind(target, "receive", receive);
  bind(target, "broadcast", broadcast);
  bind(target, "barrier", barrier);
  bind(target, "allReduce", all_reduce);
  bind(target, "reduceScatter", reduce_scatter);
  bind(target, "allGather", all_gather);
  bind(target, "allToAll", all_to_all);
  bind(target, "allToAllSeconds", all_to_all_seconds);
  bind(target, "wait", wait);
  bind(target, "done", done);
  bind(target, "counterAdd", counter_add);
  bind(target, "counterWait", counter_wait);
  bind(target, "listen", listen);
  bind(target, "counterReach", counter_reach);
  bind(target, "news", news);
  bind(target, "awaitNews", wait_news);
  bind(target, "usePlanes", use_planes);
  bind(target, "silence", silence);
  bind(target, "linkSilence", link_silence);
  bind(target, "setSilenceLimit", set_silence_limit);
  bind(target, "finish", finish);
  bind(target, "abort", abort_all);
  return exports;
}
