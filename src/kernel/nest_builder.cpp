#include "kernel/nest_builder.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"

namespace espalier::kernel {

using ir::Value;

namespace {

std::set<int> variables_of(const std::vector<Affine>& index) {
  std::set<int> vars;
  for (const Affine& a : index)
    for (const Affine::Term& t : a.terms) vars.insert(t.var);
  return vars;
}

}  // namespace

/// Loops for one axis (none for an extent of 1) and the position along it.
Affine NestBuilder::new_axis(const AxisKey& axis, int64_t extent, std::vector<int>& loops) {
  const auto it = decisions_.factors.find(axis);
  const std::vector<int64_t> factors =
      it == decisions_.factors.end() ? std::vector<int64_t>{extent} : it->second;
  Affine at;
  int64_t stride = extent;
  for (size_t i = 0; i < factors.size(); ++i) {
    stride = factors[i] ? stride / factors[i] : 1;
    if (factors[i] == 1) continue;
    const auto var = static_cast<int>(nest_.extents.size());
    nest_.extents.push_back(factors[i]);
    variables_.push_back({axis, i});
    loops.push_back(var);
    at.add(Affine::var(var, stride));
  }
  return at;
}

Index NestBuilder::target_index(const Target& t, std::vector<int>& loops) {
  Index index;
  const std::vector<int64_t> dims = ir::static_dims(t.value.dims());
  for (size_t i = 0; i < dims.size(); ++i)
    index.push_back({new_axis({key_of(t.value), static_cast<int64_t>(i)}, dims[i], loops), {}});
  return index;
}

/// Draft the stage that stores a target. Targets of the first one's dims share its loops and its stage.
void NestBuilder::add_target(const Target& t) {
  const std::vector<int64_t> dims = ir::static_dims(t.value.dims());
  storing_ = key_of(t.value);
  targets_.push_back(t.value);
  const Cut cut = t.in_parts ? decisions_.cuts.at(*storing_) : Cut{};
  const bool shares = !target_drafts_.empty() && dims == first_dims_ && cut.parts == first_cut_.parts &&
                      cut.factors == first_cut_.factors;
  Index index = first_index_;
  Affine part = first_part_;
  if (!shares) {
    StageDraft fresh;
    std::vector<int>& loops = fresh.stage.loops;
    if (t.in_parts) part = new_axis({*storing_, folded_axis - 1}, cut.parts, loops);
    index = target_index(t, loops);
    if (target_drafts_.empty())
      first_index_ = index, first_part_ = part, first_dims_ = dims, first_cut_ = cut;
    else alias_candidates_ = std::set<int>(loops.begin(), loops.end());
    target_drafts_.push_back(std::move(fresh));
  }
  StageDraft& d = shares ? target_drafts_.front() : target_drafts_.back();
  Store st;
  st.buffer = t.buffer;
  st.value = t.in_parts ? part_value(d, t.value, index, part) : eval(d, t.value, index, {});
  storing_.reset();
  const std::vector<int64_t> strides = ir::row_major_strides(dims);
  for (size_t i = 0; i < index.size(); ++i) st.address.add(index[i].affine, strides[i]);
  if (t.in_parts) st.address.add(part, ir::count(std::span<const int64_t>(dims)));
  d.stage.stores.push_back(st);
}

/// The instruction that stands for one part of a long fold.
int NestBuilder::part_value(StageDraft& d, const Value& v, const Index& index, const Affine& part) {
  std::vector<Affine> at;
  for (const Position& p : index) at.push_back(p.affine);
  const int id = add_request(v, std::move(at), part);
  d.requests.insert(id);
  Instr in;
  in.kind = Instr::Kind::reduced;
  in.dtype = requests_[static_cast<size_t>(id)].reduction.dtype;
  in.operand = {id, 0, -1};
  return add(d, in);
}

/// The instruction that stands for fold `v` at `index`.
int NestBuilder::request(StageDraft& d, const Value& v, const Index& index, const Guards& guards) {
  if (!guards.empty()) throw MustStore{v};
  std::vector<Affine> at;
  for (const Position& p : index) {
    if (!p.data.empty()) throw MustStore{v};
    at.push_back(p.affine);
  }
  const int id = add_request(v, std::move(at), std::nullopt);
  d.requests.insert(id);
  Instr in;
  in.kind = Instr::Kind::reduced;
  const Reduction& r = requests_[static_cast<size_t>(id)].reduction;
  in.dtype = r.op >= ReduceOp::argmax ? requests_[static_cast<size_t>(id)].fold.position : r.dtype;
  in.operand = {id, 0, -1};
  return add(d, in);
}

int NestBuilder::add_request(const Value& v, std::vector<Affine> index, std::optional<Affine> part) {
  for (size_t i = 0; i < requests_.size(); ++i) {
    const Request& r = requests_[i];
    if (r.value == v && r.part.has_value() == part.has_value() && (r.index == index || alias(r, index)))
      return static_cast<int>(i);
  }
  Request r;
  r.value = v;
  r.index = std::move(index);
  r.part = std::move(part);
  r.fold = *fold_of(v);
  if (!r.part && !decisions_.cuts.count(key_of(v))) maybe_cut(r);
  r.reduction.op = r.fold.op;
  r.reduction.dtype = r.fold.accumulator;
  const auto id = static_cast<int>(requests_.size());
  requests_.push_back(std::move(r));
  draft_fold(id);
  return id;
}

/// A later target meets a fold that an earlier one has met elsewhere: when their loops correspond one to one, they are the same.
bool NestBuilder::alias(const Request& r, const std::vector<Affine>& index) {
  std::map<int, Affine> found;
  for (size_t i = 0; i < index.size(); ++i) {
    Affine a = index[i];
    Affine known = r.index[i];
    for (const auto& [var, by] : aliases_) {
      a = a.replaced(var, by);
      known = known.replaced(var, by);
    }
    if (a == known) continue;
    if (a.offset != 0 || known.offset != 0 || a.terms.size() != known.terms.size()) return false;
    for (size_t k = 0; k < a.terms.size(); ++k) {
      const Affine::Term &mine = a.terms[k], &theirs = known.terms[k];
      const bool same = mine.coef == theirs.coef && nest_.extent(mine.var) == nest_.extent(theirs.var);
      if (!same || !alias_candidates_.count(mine.var)) return false;
      const Affine image = Affine::var(theirs.var);
      if (!found.emplace(mine.var, image).second && !(found.at(mine.var) == image)) return false;
    }
  }
  // Two loops of one target that became one would leave all but the diagonal of its result unwritten.
  for (const auto& [var, image] : found) {
    const auto taken = [&, v = var, &to = image](const auto& other) {
      return other.first != v && other.second == to && alias_candidates_.count(other.first) != 0;
    };
    if (std::ranges::any_of(found, taken) || std::ranges::any_of(aliases_, taken)) return false;
  }
  aliases_.insert(found.begin(), found.end());
  return true;
}

/// Cut a fold of many elements where few units of work would run in parallel.
void NestBuilder::maybe_cut(const Request& r) const {
  if (r.fold.op >= ReduceOp::argmax) return;
  const std::vector<int64_t> dims = ir::static_dims(r.value.dims());
  const int64_t kept = ir::count(std::span<const int64_t>(dims)),
                folded = ir::count(std::span<const int64_t>(r.fold.extents));
  const int64_t together = r.fold.last_axis_kept && !dims.empty()
                               ? std::clamp<int64_t>(dims.back(), 1, options_.results_together)
                               : 1;
  const int64_t units = kept / together;
  if (units >= options_.enough_units || kept * folded <= options_.long_reduction || folded < 64) return;
  const int64_t wanted = std::min((options_.wanted_units + units - 1) / std::max<int64_t>(1, units),
                                  together * folded / options_.part_elements);
  if (wanted < 2) return;
  if (options_.cuts_axes_together) return cut_axes(r, wanted);
  size_t axis = 0;
  while (axis < r.fold.extents.size() && r.fold.extents[axis] < std::min<int64_t>(wanted, 16)) ++axis;
  if (axis == r.fold.extents.size())
    axis = static_cast<size_t>(std::max_element(r.fold.extents.begin(), r.fold.extents.end()) -
                               r.fold.extents.begin());
  const int64_t parts = std::min(wanted, r.fold.extents[axis]);
  if (parts >= 2) throw MustCut{r.value, axis, parts};
}

/// Cut the first axis, and where it has too few elements the next ones with it; in equal parts if that takes no less than half as many.
void NestBuilder::cut_axes(const Request& r, int64_t wanted) const {
  const std::vector<int64_t>& extents = r.fold.extents;
  size_t axis = 0;
  int64_t before = 1;
  while (axis + 1 < extents.size() && before * extents[axis] < wanted) before *= extents[axis++];
  const int64_t needed = std::min((wanted + before - 1) / before, extents[axis]);
  int64_t parts = needed;
  while (2 * parts > needed && extents[axis] % parts != 0) --parts;
  if (extents[axis] % parts != 0) parts = needed;
  if (before * parts >= 2) throw MustCut{r.value, axis, parts, axis > 0};
}

/// Where part `part` of a fold begins along its axis `i`.
Affine NestBuilder::part_begin(const Cut& cut, const Affine& part, size_t i) {
  if (cut.factors.empty()) {
    Affine begin;
    if (i == cut.axis) begin.add(part, cut.step);
    return begin;
  }
  int64_t stride = cut.parts;
  for (size_t k = 0; k <= i; ++k) stride /= cut.factors[k];
  Affine
      begin;  // the loops of this factor, several where it is split, are the terms from its stride to the next one's
  for (const Affine::Term& t : part.terms)
    if (t.coef >= stride && t.coef < stride * cut.factors[i])
      begin.add(Affine::var(t.var, t.coef / stride * (i == cut.axis ? cut.step : 1)));
  return begin;
}

/// Positions along the folded axes, with their loops; `inside` is what a part must observe at its end.
std::vector<Affine> NestBuilder::folded_index(const Request& r, std::vector<int>& loops, Guards& inside) {
  std::vector<Affine> at;
  for (size_t i = 0; i < r.fold.extents.size(); ++i) {
    int64_t extent = r.fold.extents[i];
    Affine offset;
    if (r.part) {
      const Cut& cut = decisions_.cuts.at(key_of(r.value));
      if (i <= cut.axis && (i == cut.axis || !cut.factors.empty())) {
        extent = i == cut.axis ? cut.step : 1;
        offset = part_begin(cut, *r.part, i);
      }
    }
    Affine a = new_axis({key_of(r.value), folded_axis + static_cast<int64_t>(i)}, extent, loops);
    a.add(offset);
    const Guard g{a, 0, r.fold.extents[i]};
    if (r.part && always(g) != true) inside.push_back(g);
    at.push_back(std::move(a));
  }
  return at;
}

/// What a fold by `op` does not notice among its elements.
int NestBuilder::neutral(StageDraft& d, ReduceOp op, Dtype dtype) {
  if (op == ReduceOp::sum || op == ReduceOp::prod) return constant(d, dtype, op == ReduceOp::prod);
  const bool lowest = op == ReduceOp::max;
  constexpr double inf = std::numeric_limits<double>::infinity();
  const auto limit = [&](auto like) {
    using Limits = std::numeric_limits<decltype(like)>;
    return whole_number(d, dtype, static_cast<int64_t>(lowest ? Limits::min() : Limits::max()));
  };
  switch (dtype) {
    case Dtype::i64: return limit(int64_t{});
    case Dtype::i32: return limit(int32_t{});
    case Dtype::i8: return limit(int8_t{});
    case Dtype::u8: return limit(uint8_t{});
    case Dtype::boolean: return whole_number(d, dtype, !lowest);
    default: return constant(d, dtype, lowest ? -inf : inf);
  }
}

/// The stage that computes a fold: over the folded axes, or over the parts that another nest has left.
void NestBuilder::draft_fold(int id) {
  StageDraft d;
  std::vector<int> loops;
  const Request r = requests_[static_cast<size_t>(id)];  // a copy: evaluation adds requests
  int value, position = -1;
  const auto cut = decisions_.cuts.find(key_of(r.value));
  if (cut != decisions_.cuts.end() && !r.part) {
    built_.reads_parts.insert(key_of(r.value));
    const std::vector<int64_t> kept = ir::static_dims(r.value.dims());
    std::vector<int64_t> dims{cut->second.parts};
    dims.insert(dims.end(), kept.begin(), kept.end());
    Index index{{new_axis({key_of(r.value), folded_axis - 1}, cut->second.parts, loops), {}}};
    for (const Affine& a : r.index) index.push_back({a, {}});
    value = load(d, cut->second.buffer, nest_.buffers[static_cast<size_t>(cut->second.buffer)].dtype, dims,
                 index, {});
  } else {
    Guards guards;
    const std::vector<Affine> folded = folded_index(r, loops, guards);
    const std::optional<ValueKey> outer_storing = std::exchange(storing_, std::nullopt);
    const Element element = eval_fold_element(d, r, folded, guards);
    value = element.value;
    if (picks_an_element(r.fold.op)) value = rounded(d, value, r.value.node().input(0).dtype());
    position = element.position;
    storing_ = outer_storing;
    if (!guards.empty()) {
      ESPALIER_CHECK(r.fold.op == ReduceOp::sum || r.fold.op == ReduceOp::prod ||
                     r.fold.op == ReduceOp::max || r.fold.op == ReduceOp::min);
      const Dtype dtype = d.stage.body[static_cast<size_t>(value)].dtype;
      value =
          scalar(d, ir::ScalarCode::select, dtype, {inside(d, guards), value, neutral(d, r.fold.op, dtype)});
    }
  }
  d.stage.loops = loops;
  Request& out = requests_[static_cast<size_t>(id)];
  out.reduction.value = value;
  out.reduction.position = position;
  out.draft = std::move(d);
}

/// All folds of a nest are at the same outer loops; one that is not gets a nest of its own.
std::vector<int> NestBuilder::outer_of_requests() const {
  std::set<int> all;
  const auto of = [&](const Request& r) {
    std::vector<Affine> index = r.index;
    if (r.part) index.push_back(*r.part);
    return variables_of(index);
  };
  for (const Request& r : requests_)
    for (int v : of(r)) {
      all.insert(v);
      const bool of_target =
          std::any_of(target_drafts_.begin(), target_drafts_.end(), [&](const StageDraft& d) {
            return std::count(d.stage.loops.begin(), d.stage.loops.end(), v) != 0;
          });
      if (!of_target) throw MustStore{r.value};  // inside another fold's loops
    }
  for (const Request& r : requests_)
    if (of(r) != all) throw MustStore{r.value};
  return {all.begin(), all.end()};
}

/// Large work inside few outer points would run on few threads and out of the cache: its folds are stored first.
void NestBuilder::check_sizes() const {
  int64_t outer = 1;
  for (int v : nest_.outer) outer *= nest_.extent(v);
  for (const StageDraft& d : target_drafts_) {
    int64_t inner = 1;
    for (int v : d.stage.loops)
      if (std::find(nest_.outer.begin(), nest_.outer.end(), v) == nest_.outer.end()) inner *= nest_.extent(v);
    if (inner == 1) continue;
    const bool too_large =
        inner > options_.max_inner || (outer < options_.few_units && outer * inner > options_.few_inner);
    const bool parts_only =
        options_.adds_parts_again && std::ranges::all_of(requests_, [&](const Request& r) {
          return !r.part && decisions_.cuts.contains(key_of(r.value));
        });
    if (too_large && !parts_only && !d.requests.empty())
      throw MustStore{requests_[static_cast<size_t>(*d.requests.begin())].value};
  }
}

/// Requests such that each comes after those its stage refers to.
std::vector<int> NestBuilder::order_of_requests() const {
  std::vector<int> order;
  std::set<int> done;
  const auto visit = [&](auto& self, int id) -> void {
    if (!done.insert(id).second) return;
    for (int other : requests_[static_cast<size_t>(id)].draft.requests) self(self, other);
    order.push_back(id);
  };
  for (size_t i = 0; i < requests_.size(); ++i) visit(visit, static_cast<int>(i));
  return order;
}

/// Put a fold into an existing stage of the same loops that it does not depend on.
bool NestBuilder::try_join(Request& r, size_t stage, const std::set<int>& members) {
  Stage& to = nest_.stages[stage];
  if (to.loops.size() != r.draft.stage.loops.size()) return false;
  for (size_t i = 0; i < to.loops.size(); ++i)
    if (nest_.extent(to.loops[i]) != nest_.extent(r.draft.stage.loops[i])) return false;
  const auto depends = [&](auto& self, int id) -> bool {
    if (members.count(id)) return true;
    const auto& needs = requests_[static_cast<size_t>(id)].draft.requests;
    return std::any_of(needs.begin(), needs.end(), [&](int n) { return self(self, n); });
  };
  for (int id : r.draft.requests)
    if (depends(depends, id)) return false;
  StageDraft joined;
  joined.stage = to;
  std::vector<int> renamed;
  for (Instr in : r.draft.stage.body) {
    const auto rename = [&](Affine a) {
      for (size_t i = 0; i < to.loops.size(); ++i)
        a = a.replaced(r.draft.stage.loops[i], Affine::var(to.loops[i]));
      return a;
    };
    in.address = rename(in.address);
    for (Guard& g : in.guards) g.index = rename(g.index);
    if (in.kind != Instr::Kind::reduced)
      for (int& o : in.operand)
        if (o >= 0) o = renamed[static_cast<size_t>(o)];
    for (Indirect& i : in.indirect) i.value = renamed[static_cast<size_t>(i.value)];
    renamed.push_back(add(joined, in));
  }
  r.reduction.value = renamed[static_cast<size_t>(r.reduction.value)];
  if (r.reduction.position >= 0) r.reduction.position = renamed[static_cast<size_t>(r.reduction.position)];
  to.body = std::move(joined.stage.body);
  return true;
}

void NestBuilder::place_requests() {
  std::vector<std::set<int>> members;
  for (int id : order_of_requests()) {
    Request& r = requests_[static_cast<size_t>(id)];
    // A stage may be joined when the fold depends on nothing in it or after it.
    size_t first = 0;
    for (int need : r.draft.requests)
      first = std::max(first, static_cast<size_t>(requests_[static_cast<size_t>(need)].stage) + 1);
    size_t s = first;
    while (s < nest_.stages.size() && !try_join(r, s, members[s])) ++s;
    if (s == nest_.stages.size()) {
      nest_.stages.push_back(r.draft.stage);
      members.emplace_back();
    }
    r.stage = static_cast<int>(s);
    r.result = static_cast<int>(nest_.stages[s].reductions.size());
    nest_.stages[s].reductions.push_back(r.reduction);
    members[s].insert(id);
  }
}

/// Stages that store: those with the same loops are one.
void NestBuilder::place_targets() {
  const size_t first = nest_.stages.size();
  for (StageDraft& d : target_drafts_) {
    Stage stage = std::move(d.stage);
    std::erase_if(stage.loops, [&](int v) {
      return std::find(nest_.outer.begin(), nest_.outer.end(), v) != nest_.outer.end();
    });
    nest_.stages.push_back(std::move(stage));
  }
  for (size_t a = first; a < nest_.stages.size(); ++a)
    for (size_t b = a + 1; b < nest_.stages.size();) {
      Stage &to = nest_.stages[a], &from = nest_.stages[b];
      if (to.loops != from.loops) {
        ++b;
        continue;
      }
      StageDraft joined;
      joined.stage = to;
      std::vector<int> renamed;
      for (Instr in : from.body) {
        if (in.kind != Instr::Kind::reduced)
          for (int& o : in.operand)
            if (o >= 0) o = renamed[static_cast<size_t>(o)];
        for (Indirect& i : in.indirect) i.value = renamed[static_cast<size_t>(i.value)];
        renamed.push_back(add(joined, in));
      }
      for (Store s : from.stores) {
        s.value = renamed[static_cast<size_t>(s.value)];
        joined.stage.stores.push_back(s);
      }
      to = std::move(joined.stage);
      nest_.stages.erase(nest_.stages.begin() + static_cast<std::ptrdiff_t>(b));
    }
}

/// Folds are known by request until all stages stand; then by stage and number.
void NestBuilder::resolve(Stage& stage) const {
  for (Instr& in : stage.body) {
    if (in.kind != Instr::Kind::reduced) continue;
    const Request& r = requests_[static_cast<size_t>(in.operand[0])];
    in.operand = {r.stage, r.result, -1};
  }
}

/// Put the first target's variables in place of those that were found to be the same.
void NestBuilder::apply_aliases() {
  const auto rename = [&](Affine a) {
    for (const auto& [var, by] : aliases_) a = a.replaced(var, by);
    return a;
  };
  const auto in_stage = [&](Stage& stage) {
    for (Instr& in : stage.body) {
      in.address = rename(in.address);
      for (Guard& g : in.guards) g.index = rename(g.index);
    }
    for (Store& s : stage.stores) s.address = rename(s.address);
    for (int& v : stage.loops)
      if (const auto it = aliases_.find(v); it != aliases_.end()) v = it->second.terms.at(0).var;
  };
  for (Request& r : requests_) {
    for (Affine& a : r.index) a = rename(a);
    in_stage(r.draft.stage);
  }
  for (StageDraft& d : target_drafts_) in_stage(d.stage);
}

void NestBuilder::note_values(std::map<ValueKey, Value>& values) const {
  for (const Request& r : requests_) values.insert_or_assign(key_of(r.value), r.value);
  for (const Value& v : targets_) values.insert_or_assign(key_of(v), v);
}

Built NestBuilder::build(std::span<const Target> targets) {
  for (const Target& t : targets)
    if (!t.in_parts && fold_of(t.value) && !decisions_.cuts.contains(key_of(t.value)))
      own_folds_.insert(key_of(t.value));
  for (const Target& t : targets) add_target(t);
  const bool related = !requests_.empty() || target_drafts_.size() == 1;
  if (!related) throw CannotLower{"outputs of unrelated dims in one nest"};
  if (requests_.empty()) {
    nest_.outer = target_drafts_[0].stage.loops;
  } else {
    apply_aliases();
    nest_.outer = outer_of_requests();
    for (const StageDraft& d :
         target_drafts_)  // one that does not walk the outer loops would be stored at each point
      for (int v : nest_.outer)
        if (std::find(d.stage.loops.begin(), d.stage.loops.end(), v) == d.stage.loops.end())
          throw CannotLower{"outputs of unrelated dims in one nest"};
    check_sizes();
    place_requests();
  }
  place_targets();
  for (Stage& s : nest_.stages) resolve(s);
  built_.nest = std::move(nest_);
  return std::move(built_);
}

}  // namespace espalier::kernel
