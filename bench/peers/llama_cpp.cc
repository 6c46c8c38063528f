// llama.cpp through its C API with a thread pool of its own, driven line by line so that a benchmark can measure it in turn
// with others. Built by bench/peers/llama_cpp.sh.
//
//   llama_cpp MODEL.gguf threads=2 poll=50 fa=0|1 repack=0|1 kv=f16|f32 ctx=8192 seqs=8 ubatch=512
//
// Commands on standard input, one JSON object each on standard output; every step's seconds are listed:
//   prefill N           N tokens of a new sequence, logits of the last
//   decode C N          N steps of one token behind C tokens of context
//   batch S C N         N steps of S sequences with C tokens of context each
//   greedy N ID,ID,...  the N most likely tokens after these, their logits, and how far ahead of the second each was
//   logits ID,ID,...    the logits of the last
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "llama.h"

namespace {

using Clock = std::chrono::steady_clock;

double now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

struct Peer {
  llama_model* model;
  llama_context* context;
  int vocabulary;
  // Tokens in sequence 0, which `decode` reuses from call to call.
  int held = 0;

  // Token at a position; the same sequence that the benchmark feeds its own engine.
  llama_token token(long position) const { return static_cast<llama_token>(5 + position * 7919 % (vocabulary - 5)); }

  void clear() {
    llama_memory_clear(llama_get_memory(context), true);
    held = 0;
  }

  // Tokens first..first+count of one sequence, in batches as large as the context takes them.
  void feed(llama_seq_id sequence, const std::vector<llama_token>& tokens, int first) {
    const int limit = static_cast<int>(llama_n_batch(context));
    for (int at = 0; at < static_cast<int>(tokens.size()); at += limit) {
      const int count = std::min(limit, static_cast<int>(tokens.size()) - at);
      llama_batch batch = llama_batch_init(count, 0, 1);
      for (int i = 0; i < count; i++) add(batch, tokens[at + i], first + at + i, sequence, false);
      batch.logits[count - 1] = 1;
      run(batch);
      llama_batch_free(batch);
    }
  }

  void feed(llama_seq_id sequence, int first, int count) {
    std::vector<llama_token> tokens(count);
    for (int i = 0; i < count; i++) tokens[i] = token(first + i + 31L * sequence);
    feed(sequence, tokens, first);
  }

  static void add(llama_batch& batch, llama_token token, int position, llama_seq_id sequence, bool wanted) {
    const int i = batch.n_tokens++;
    batch.token[i] = token;
    batch.pos[i] = position;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = sequence;
    batch.logits[i] = wanted;
  }

  void run(llama_batch batch) {
    if (llama_decode(context, batch) != 0) fail("llama_decode failed");
    llama_synchronize(context);
  }
};

std::string list(const std::vector<double>& values) {
  std::ostringstream out;
  out.precision(9);
  for (size_t i = 0; i < values.size(); i++) out << (i ? "," : "[") << values[i];
  return values.empty() ? "[]" : out.str() + "]";
}

std::string prefill(Peer& peer, int count) {
  peer.clear();
  const double start = now();
  peer.feed(0, 0, count);
  const double seconds = now() - start;
  peer.held = count;
  return list({seconds});
}

// Brings sequence 0 to `length` tokens, keeping what it holds.
void hold(Peer& peer, int length) {
  if (peer.held > length) llama_memory_seq_rm(llama_get_memory(peer.context), 0, length, -1);
  else if (peer.held < length) peer.feed(0, peer.held, length - peer.held);
  peer.held = length;
}

std::string steps(Peer& peer, int sequences, int length, int count) {
  if (sequences > 1) peer.clear();
  for (int s = 0; sequences > 1 && s < sequences; s++) peer.feed(s, 0, length);
  if (sequences == 1) hold(peer, length);
  llama_batch batch = llama_batch_init(sequences, 0, 1);
  std::vector<double> seconds;
  for (int i = 0; i < count; i++) {
    batch.n_tokens = 0;
    for (int s = 0; s < sequences; s++) Peer::add(batch, peer.token(length + i + 31L * s), length + i, s, true);
    const double start = now();
    peer.run(batch);
    seconds.push_back(now() - start);
  }
  llama_batch_free(batch);
  if (sequences > 1) {
    peer.clear();
  } else {
    peer.held = length + count;
    hold(peer, length);
  }
  return list(seconds);
}

std::vector<llama_token> parseTokens(const std::string& text) {
  std::vector<llama_token> tokens;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, ',');) tokens.push_back(std::atoi(word.c_str()));
  return tokens;
}

std::string greedy(Peer& peer, int count, const std::vector<llama_token>& prompt) {
  peer.clear();
  peer.feed(0, prompt, 0);
  std::vector<double> ids, best_logits, margins;
  for (int i = 0; i < count; i++) {
    const float* logits = llama_get_logits_ith(peer.context, -1);
    int best = 0, second = -1;
    for (int v = 1; v < peer.vocabulary; v++) {
      if (logits[v] > logits[best]) second = best, best = v;
      else if (second < 0 || logits[v] > logits[second]) second = v;
    }
    ids.push_back(best);
    best_logits.push_back(logits[best]);
    margins.push_back(logits[best] - logits[second]);
    peer.feed(0, std::vector<llama_token>{best}, static_cast<int>(prompt.size()) + i);
  }
  peer.clear();
  return list(ids) + ",\"logits\":" + list(best_logits) + ",\"margins\":" + list(margins);
}

std::string logits(Peer& peer, const std::vector<llama_token>& prompt) {
  peer.clear();
  peer.feed(0, prompt, 0);
  const float* values = llama_get_logits_ith(peer.context, -1);
  const std::vector<double> out(values, values + peer.vocabulary);
  peer.clear();
  return list(out);
}

Peer open(const char* file, std::map<std::string, std::string>& options) {
  const auto number = [&](const char* name) { return std::atoi(options[name].c_str()); };
  llama_model_params model_params = llama_model_default_params();
  model_params.use_extra_bufts = number("repack") != 0;
  llama_model* model = llama_model_load_from_file(file, model_params);
  if (!model) fail(std::string("llama.cpp cannot load ") + file);
  llama_context_params params = llama_context_default_params();
  params.n_ctx = number("ctx");
  params.n_batch = std::max(number("ubatch"), 2048);
  params.n_ubatch = number("ubatch");
  params.n_seq_max = number("seqs");
  params.n_threads = params.n_threads_batch = number("threads");
  params.flash_attn_type = number("fa") ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.type_k = params.type_v = options["kv"] == "f32" ? GGML_TYPE_F32 : GGML_TYPE_F16;
  params.kv_unified = number("unified") != 0;
  params.no_perf = true;
  llama_context* context = llama_init_from_model(model, params);
  if (!context) fail("llama.cpp makes no context with these options");
  ggml_threadpool_params pool = ggml_threadpool_params_default(number("threads"));
  pool.poll = number("poll");
  ggml_threadpool* threads = ggml_threadpool_new(&pool);
  llama_attach_threadpool(context, threads, threads);
  return {model, context, llama_vocab_n_tokens(llama_model_get_vocab(model))};
}

std::string answer(Peer& peer, std::istringstream& line) {
  std::string command, tokens;
  int a = 0, b = 0, c = 0;
  line >> command;
  if (command == "prefill" && line >> a) return prefill(peer, a);
  if (command == "decode" && line >> a >> b) return steps(peer, 1, a, b);
  if (command == "batch" && line >> a >> b >> c) return steps(peer, a, b, c);
  if (command == "greedy" && line >> a >> tokens) return greedy(peer, a, parseTokens(tokens));
  if (command == "logits" && line >> tokens) return logits(peer, parseTokens(tokens));
  fail("unknown command " + command);
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> options = {{"threads", "2"}, {"poll", "50"},  {"fa", "0"},     {"repack", "1"},
                                                {"kv", "f16"},    {"ctx", "8192"}, {"seqs", "1"}, {"ubatch", "512"},
                                                {"unified", "1"}};
  if (argc < 2) fail("usage: llama_cpp MODEL.gguf [name=value ...]");
  for (int i = 2; i < argc; i++) {
    const std::string text = argv[i];
    const size_t at = text.find('=');
    if (at == std::string::npos || !options.count(text.substr(0, at))) fail("unknown option " + text);
    options[text.substr(0, at)] = text.substr(at + 1);
  }
  llama_log_set([](ggml_log_level level, const char* text, void*) {
    if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
  }, nullptr);
  ggml_backend_load_all();
  const double start = now();
  Peer peer = open(argv[1], options);
  std::printf("{\"loadSeconds\":%.6f,\"system\":\"%s\"}\n", now() - start, llama_print_system_info());
  std::fflush(stdout);
  for (std::string text; std::getline(std::cin, text);) {
    std::istringstream line(text);
    const std::string result = answer(peer, line);
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    std::printf("{\"values\":%s,\"residentBytes\":%ld}\n", result.c_str(), usage.ru_maxrss * 1024L);
    std::fflush(stdout);
  }
}
