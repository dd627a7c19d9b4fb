// Looking at tensors: compile what is needed, run it, keep the results. Programs are kept by structure.
#include <cstring>
#include <list>
#include <mutex>

#include "run/executor.h"
#include "run/program.h"
#include "tensor/impl.h"
#include "tensor/input_ranges.h"
#include "tensor/tracing.h"

namespace espalier {

using ir::Value;

namespace {

/// A compiled program with an executor of its own. Values differ from look to look, structure repeats.
struct CachedProgram {
  size_t hash;
  ir::Graph graph;
  std::shared_ptr<const run::Program> program;
  run::Executor executor;
  CachedProgram(size_t h, ir::Graph g)
      : hash(h),
        graph(std::move(g)),
        program(run::Program::compile(graph, options_for(graph))),
        executor(program) {}

  static run::CompileOptions options_for(const ir::Graph& graph) {
    run::CompileOptions o;
    o.ranges = input_ranges(graph, graph.inputs.size());
    return o;
  }
};

/// The most recently used programs of looks at tensors.
class ProgramCache {
 public:
  std::vector<Array> run(ir::Graph graph, std::span<const Array> inputs) {
    const std::lock_guard lock(mutex_);
    CachedProgram& p = find(std::move(graph));
    for (size_t i = 0; i < inputs.size(); ++i)
      std::memcpy(p.executor.input(i), inputs[i].data(), static_cast<size_t>(inputs[i].bytes()));
    p.executor.run();
    std::vector<Array> out;
    for (size_t i = 0; i < p.graph.outputs.size(); ++i) {
      const ir::Type& t = p.graph.outputs[i].value.type();
      Array a(t.dtype, ir::static_dims(t.dims));
      std::memcpy(a.write(), p.executor.output(i), static_cast<size_t>(a.bytes()));
      out.push_back(std::move(a));
    }
    return out;
  }

 private:
  CachedProgram& find(ir::Graph graph) {
    const size_t hash = ir::structure_hash(graph);
    for (auto it = programs_.begin(); it != programs_.end(); ++it)
      if (it->hash == hash && ir::same_structure(it->graph, graph)) {
        programs_.splice(programs_.begin(), programs_, it);
        return programs_.front();
      }
    if (programs_.size() == 64) programs_.pop_back();
    programs_.emplace_front(hash, std::move(graph));
    return programs_.front();
  }
  std::mutex mutex_;
  std::list<CachedProgram> programs_;
};

ProgramCache& cache() {
  static ProgramCache c;
  return c;
}

}  // namespace

void evaluate(std::span<const Tensor> tensors) {
  std::vector<Tensor> wanted;
  for (const Tensor& t : tensors)
    if (!t.computed()) wanted.push_back(t);
  if (wanted.empty()) return;
  const auto known = TensorAccess::known_below(wanted);
  std::vector<Value> outputs;
  for (const Tensor& t : wanted) outputs.push_back(t.value());
  ir::Graph graph{.name = "tensor", .inputs = {}, .outputs = {}, .state = {}, .info = {}};
  std::vector<Array> arrays;
  ir::ValueMap map;
  for (const Value& v : inputs_below(outputs, known)) {
    const auto it = known.find(v);
    if (it == known.end())
      throw UserError({"tensor", "its elements are not known while a function is traced",
                       v->attrs<ir::InputAttrs>().name + " : " + v.type().text(),
                       "look at values outside the function"});
    graph.inputs.push_back(ir::new_input("x" + std::to_string(arrays.size()), v.type()));
    map.set(v, graph.inputs.back());
    arrays.push_back(it->second);
  }
  const std::vector<Value> rebuilt = rebuild_over(outputs, map);
  for (size_t i = 0; i < rebuilt.size(); ++i) graph.outputs.push_back({"y" + std::to_string(i), rebuilt[i]});
  const std::vector<ComputedRange> ranges = computed_ranges(graph);
  for (size_t i = 0; i < ranges.size(); ++i)
    graph.outputs.push_back({"checked" + std::to_string(i), ranges[i].value});
  std::vector<Array> results = cache().run(std::move(graph), arrays);
  for (size_t i = 0; i < ranges.size(); ++i)
    check_elements(ranges[i].op, results[wanted.size() + i], ranges[i].low, ranges[i].high);
  for (size_t i = 0; i < wanted.size(); ++i) TensorAccess::set_data(wanted[i], std::move(results[i]));
}

const Array& Tensor::array() const {
  if (!computed()) evaluate(std::span<const Tensor>(this, 1));
  return *impl().data;
}

double Tensor::item() const {
  const Array& a = array();
  if (a.size() != 1)
    throw UserError({"item", "tensor has more than one element", a.type().text(), "one element"});
  return a.at(0);
}

}  // namespace espalier
