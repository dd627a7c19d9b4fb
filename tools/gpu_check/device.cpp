// Of part 1: that streams wait for events, that graphs are what was captured, and that memory comes back.
#include <fmt/format.h>

#include <cstring>

#include "gpu_check/check.h"
#include "op/elementwise.h"

namespace espalier::gpu_check {

namespace {

using ir::Dtype;

/// Copies that wait for each other through events, between two streams, with pinned memory at both ends.
std::string streams_wait(const Place& place) {
  target::Device& d = *place.device;
  const int64_t n = place.small ? 1 << 14 : 1 << 24;
  const run::DeviceMemory a = run::device_memory(d, n), b = run::device_memory(d, n);
  const run::PinnedMemory from = run::pinned_memory(d, n), to = run::pinned_memory(d, n);
  const run::OwnedStream one = run::owned_stream(d), other = run::owned_stream(d);
  const run::OwnedEvent sent = run::owned_event(d), copied = run::owned_event(d);
  const auto copy = d.load({}, std::vector<target::CallRecord>{{target::CopyCall{n}, {{0, 0}, {1, 0}}, {}}});
  const int turns = 8;
  for (int turn = 0; turn < turns; ++turn) {
    for (int64_t i = 0; i < n; ++i) from.get()[i] = static_cast<char>(i * 31 + turn);
    std::memset(to.get(), 0x55, static_cast<size_t>(n));
    d.upload(a.get(), from.get(), n, one.get());
    d.record(sent.get(), one.get());
    d.wait(other.get(), sent.get());
    d.launch(*copy, 0, std::vector<target::Address>{a.get(), b.get()}, other.get());
    d.record(copied.get(), other.get());
    d.wait(one.get(), copied.get());
    d.download(to.get(), b.get(), n, one.get());
    d.sync(one.get());
    demand(std::memcmp(from.get(), to.get(), static_cast<size_t>(n)) == 0,
           fmt::format("turn {}: other bytes came back", turn));
  }
  return fmt::format("{} turns of {} bytes over two streams", turns, n);
}

constexpr int64_t elements = 1 << 12;

std::vector<Wanted> chain() {
  ir::Graph g;
  g.name = "chain";
  g.inputs = {ir::new_input("x", {Dtype::f32, {elements}})};
  g.outputs = {{"y", op::exp(op::sin(g.inputs[0]))}};
  return {{g}};
}

/// Runs of two slots under way at once, of a captured graph from the second turn on: each gives what its own input asks.
std::string graphs_replay(const Loaded& programs) {
  run::DeviceExecutor graphs(programs.at(0)), plain(programs.at(0), {.graphs = false});
  const int64_t n = elements;
  const auto bytes = static_cast<size_t>(n) * sizeof(float);
  const auto put = [&](run::DeviceExecutor& e, int turn) {
    auto* x = static_cast<float*>(e.input(0));
    for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(i % 1013) * 0.01f + static_cast<float>(turn);
  };
  const int turns = 10;
  std::vector<run::Ticket> tickets;
  const auto compare = [&](int turn) {
    put(plain, turn);
    const run::Ticket want = plain.run();
    graphs.wait(tickets[static_cast<size_t>(turn)]);
    demand(
        std::memcmp(graphs.output(tickets[static_cast<size_t>(turn)], 0), plain.output(want, 0), bytes) == 0,
        fmt::format("run {} of a graph has other bits", turn));
  };
  for (int turn = 0; turn < turns; ++turn) {
    put(graphs, turn);
    tickets.push_back(graphs.submit());
    if (turn > 0) compare(turn - 1);
  }
  compare(turns - 1);
  demand(graphs.replays() > 0, "no run was replayed");
  return fmt::format("{} of {} runs were replays", graphs.replays(), turns);
}

/// What programs take is given back, limits hold, and what does not fit is refused before anything is taken.
std::string pools_give_back(const Place& place, const Loaded& programs) {
  target::Device& d = *place.device;
  const int64_t bytes = place.small ? 1 << 20 : int64_t{256} << 20;
  (void)run::device_memory(d, bytes);  // pages that the driver keeps
  const int64_t before = d.free_bytes();
  const target::MemoryStatistics had = d.account().statistics();
  for (int turn = 0; turn < 16; ++turn) {
    const run::DeviceMemory a = run::device_memory(d, bytes), b = run::device_memory(d, bytes / 2);
    const run::DeviceExecutor e(programs.at(0));
    demand(d.account().statistics().in_use >= had.in_use + bytes + bytes / 2 + e.allocated_bytes(),
           "the account has less than was taken");
  }
  demand(d.account().statistics().in_use == had.in_use, "the account does not come back to where it was");
  const int64_t lost = before - d.free_bytes();
  constexpr int64_t pages = int64_t{4} << 20;
  demand(lost <= pages, fmt::format("{} bytes did not come back", lost));
  d.account().set_limit(had.in_use + bytes);
  bool refused = false;
  try {
    (void)run::device_memory(d, 2 * bytes);
  } catch (const UserError&) {
    refused = true;
  }
  d.account().set_limit(had.limit);
  demand(refused, "twice the limit was given");
  return fmt::format("16 turns, {} bytes less are free", std::max<int64_t>(lost, 0));
}

}  // namespace

void add_device(std::vector<Check>& all) {
  all.push_back(
      {"streams wait for events", {}, [](const Place& p, const Loaded&) { return streams_wait(p); }});
  for (const bool memory : {false, true})
    all.push_back({memory ? "memory comes back" : "graphs replay what was captured", chain,
                   [memory](const Place& p, const Loaded& l) {
                     return memory ? pools_give_back(p, l) : graphs_replay(l);
                   }});
}

}  // namespace espalier::gpu_check
