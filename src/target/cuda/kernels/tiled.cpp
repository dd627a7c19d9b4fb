// A contraction through shared memory: a block of 256 threads computes a tile of rows and columns, 16 or 32 folded elements at a
// time. Each thread keeps a small square of the tile in registers, or (bf16 and f16, by tensor cores) each of the 8 warps some
// squares of 16 by 8. Where there is much to multiply, tensor cores take tiles of 256 by 128, 64 folded elements at a time: a block then asks
// memory for a quarter less than two of 128 by 128 do for the same results, and waits half as often. That is 54 KiB of shared memory, which
// a launch has to ask for.
#include <fmt/format.h>

#include <algorithm>

#include "target/cuda/arch.h"
#include "target/cuda/kernels/contraction_text.h"
#include "target/cuda/kernels/pattern.h"

namespace espalier::target::cuda {

namespace {

constexpr int tile_threads = 256;
constexpr int warp_rows = 2, warp_columns = 4;  // of the tile, by tensor cores
constexpr int matrix_gap = 8;                   // elements between rows of a tile for tensor cores
constexpr int large_fold_step = 64;
constexpr int64_t large_least_fold = 256;

/// How the threads of a block bring one operand's part of a tile.
struct Load {
  const char* name;
  const Contraction::Side& side;
  const std::vector<int>& list;  ///< its rows (or columns)
  int64_t extent;                ///< of those
  int tile;                      ///< of them in a block
  bool along_fold = true;        ///< its neighbours in memory are neighbours in the folded loops
  int vector = 1;
  int each = 1;          ///< accesses of a thread
  int step = 1;          ///< from one of them to the next: rows, or folded elements
  bool partial = false;  ///< there are fewer accesses than threads
  int kept() const { return along_fold ? each : 1; }  ///< rows a thread has to do with
};

class Tiled {
 public:
  explicit Tiled(const ContractionPart& part)
      : p_(part),
        c_(part.loops),
        text_(part),
        rows_(c_.points(c_.rows)),
        columns_(c_.points(c_.columns)),
        folded_(c_.points(c_.folded)),
        wide_(ir::dtype_size(c_.sum) == 8 ? 2 : 4),
        matrix_((c_.operand == Dtype::bf16 || c_.operand == Dtype::f16) && rows_ >= 16 && columns_ >= 8),
        fold_step_(matrix_ ? largest_fold_step : 16) {
    choose_tile();
    a_ = std::make_unique<Load>(load_of("a", c_.a, c_.rows, rows_, 16 * mine_rows_, part.alignment[0]));
    b_ = std::make_unique<Load>(
        load_of("b", c_.b, c_.columns, columns_, 16 * mine_columns_, part.alignment[1]));
  }

  int64_t blocks() const {
    return tiles(rows_, mine_rows_) * tiles(columns_, mine_columns_) * p_.parts * c_.points(c_.batch);
  }

  ContractionKernel kernel() {
    memory();
    place();
    prepare(*a_);
    prepare(*b_);
    loader(*a_);
    loader(*b_);
    putter(*a_);
    putter(*b_);
    sums();
    if (matrix_) matrix_results();
    else results();
    ContractionKernel made;
    made.source = kernel_source(
        matrix_ ? "contraction_matrix" : "contraction_tiled",
        fmt::format("(const {0}* __restrict__ a, const {0}* __restrict__ b, {1}* __restrict__ c) {{\n{2}}}\n",
                    memory_type(c_.operand), text_.result_type(), out_.text()),
        tile_threads, true, true);
    made.call = launch_of(made.source, blocks() * tile_threads);
    made.call.shared_bytes = asks_for_memory() ? tile_bytes() : 0;
    const int64_t element = ir::dtype_size(c_.operand);
    const int result_vector = together(matrix_ ? 2 : std::min(mine_columns_, wide_));
    made.call.alignment = {a_->vector * element, b_->vector * element,
                           result_vector * ir::dtype_size(c_.result)};
    made.loaded = blocks() / p_.parts * (a_->tile + b_->tile) * folded_ * element;
    return made;
  }

 private:
  static int64_t tiles(int64_t n, int mine) { return (n + 16 * mine - 1) / (16 * mine); }
  int fitting(int64_t n, int most) const {
    int mine = matrix_ ? 2 : 1;
    while (mine < most && 16 * mine < n) mine *= 2;
    return mine;
  }

  /// Large tiles load less; small ones keep more of the GPU busy, and leave registers for what is brought by the element.
  void choose_tile() {
    const bool by_element =
        matrix_ && (load_of("a", c_.a, c_.rows, rows_, 16, p_.alignment[0]).vector == 1 ||
                    load_of("b", c_.b, c_.columns, columns_, 16, p_.alignment[1]).vector == 1);
    const int most = by_element || ir::dtype_size(c_.sum) == 8 ? 4 : 8;
    mine_rows_ = fitting(rows_, most);
    mine_columns_ = fitting(columns_, most);
    if (matrix_ && most == 8) enlarge();
    while ((mine_rows_ > 4 || mine_columns_ > 4) && blocks() < p_.wanted_blocks) {
      mine_rows_ = std::min(mine_rows_, 4);
      mine_columns_ = std::min(mine_columns_, 4);
    }
  }

  /// The longer side twice as long, where the device has the memory, enough blocks stay, and no registers go to guards or wide indices.
  void enlarge() {
    if (p_.wide_index || !c_.a.guards.empty() || !c_.b.guards.empty()) return;
    if (mine_rows_ < 8 || mine_columns_ < 8 || p_.parts > 1 || folded_ < large_least_fold) return;
    const bool is_tall = rows_ >= columns_;
    if (tiles(is_tall ? rows_ : columns_, 8) % 2 != 0) return;  // half of the last would be empty
    const auto with = [&](int factor, int step) {
      (is_tall ? mine_rows_ : mine_columns_) = 8 * factor;
      fold_step_ = step;
    };
    with(2, large_fold_step);
    const int64_t bytes = int64_t{16} * (mine_rows_ + mine_columns_) * (fold_step_ + matrix_gap) * 2;
    if (blocks() < p_.wanted_blocks || bytes > p_.shared_limit) with(1, largest_fold_step);
  }

  Load load_of(const char* name, const Contraction::Side& side, const std::vector<int>& list, int64_t extent,
               int tile, int64_t alignment) const {
    Load l{.name = name, .side = side, .list = list, .extent = extent, .tile = tile};
    const bool fold_is_next = !c_.folded.empty() && side.address.coef(c_.folded.back()) == 1;
    l.along_fold = fold_is_next || list.empty() || side.address.coef(list.back()) != 1;
    l.vector = vector_along(c_, side, l.along_fold ? c_.folded : list, c_.operand, alignment);
    const int accesses = fold_step_ * tile / l.vector;
    l.each = std::max(1, accesses / tile_threads);
    l.partial = accesses < tile_threads;
    l.step = l.along_fold ? tile_threads * l.vector / fold_step_ : tile_threads * l.vector / tile;
    return l;
  }

  /// A tile's rows are folded elements, 16 bytes further than they must be, so that banks differ; for tensor cores, whose operands are
  /// neighbours in the folded loops, rows of the operand.
  int pitch(const Load& l) const {
    return matrix_ ? fold_step_ + matrix_gap : l.tile + 16 / static_cast<int>(ir::dtype_size(c_.sum));
  }
  int pitches(const Load& l) const { return matrix_ ? l.tile : fold_step_; }
  const char* tile_type() const { return matrix_ ? memory_type(c_.operand) : text_.sum_type(); }

  int64_t bytes_of(const Load& l) const {
    return int64_t{pitches(l)} * pitch(l) * ir::dtype_size(matrix_ ? c_.operand : c_.sum);
  }
  int64_t tile_bytes() const { return bytes_of(*a_) + bytes_of(*b_); }
  bool asks_for_memory() const { return tile_bytes() > shared_without_opt_in; }

  void memory() {
    const int together = 16 / static_cast<int>(ir::dtype_size(matrix_ ? c_.operand : c_.sum));
    if (asks_for_memory()) {
      out_.line(fmt::format("using VecTile = Vec<{}, {}>;", tile_type(), together));
      out_.line("K_SHARED_REST(VecTile, memory);");
      out_.line(fmt::format("{0}* const a_tile = reinterpret_cast<{0}*>(memory);", tile_type()));
      out_.line(fmt::format("{}* const b_tile = a_tile + {};", tile_type(), pitches(*a_) * pitch(*a_)));
      return;
    }
    for (const Load* l : {a_.get(), b_.get()}) {
      const std::string type = fmt::format("Vec{}", l->name);
      out_.line(fmt::format("using {} = Vec<{}, {}>;", type, tile_type(), together));
      out_.line(
          fmt::format("K_SHARED({}, {}_memory, {});", type, l->name, pitches(*l) * pitch(*l) / together));
      out_.line(
          fmt::format("{0}* const {1}_tile = reinterpret_cast<{0}*>({1}_memory);", tile_type(), l->name));
    }
  }

  /// Which tile, part and batch the block has.
  void place() {
    out_.line("const int t = static_cast<int>(threadIdx.x);");
    out_.line("unsigned unit = blockIdx.x;");
    const char* type = text_.unsigned_type();
    const auto digit = [&](const char* name, int64_t count, int tile) {
      out_.line(fmt::format("const {0} {1} = static_cast<{0}>(unit % {2}u) * {3};", type, name, count, tile));
      out_.line(fmt::format("unit /= {}u;", count));
    };
    digit("column0", tiles(columns_, mine_columns_), b_->tile);
    digit("row0", tiles(rows_, mine_rows_), a_->tile);
    if (p_.parts > 1) {
      out_.line(fmt::format("const {0} v{1} = static_cast<{0}>(unit % {2}u);", text_.index_type(),
                            p_.part_var, p_.parts));
      out_.line(fmt::format("unit /= {}u;", p_.parts));
    }
    text_.decode(out_, c_.batch, "unit");
    text_.derived(out_);
    text_.folded_run(out_);
  }

  const char* first_of(const Load& l) const { return &l == a_.get() ? "row0" : "column0"; }

  void prepare(const Load& l) {
    const char* index = text_.index_type();
    const int across = (l.along_fold ? fold_step_ : l.tile) / l.vector;
    out_.line(fmt::format(
        "const int {0}_fold = {1}, {0}_row = {2};", l.name,
        l.along_fold ? fmt::format("t % {} * {}", across, l.vector) : fmt::format("t / {}", across),
        l.along_fold ? fmt::format("t / {}", across) : fmt::format("t % {} * {}", across, l.vector)));
    out_.line(fmt::format("{} {}_at[{}];", index, l.name, l.kept()));
    out_.line(fmt::format("bool {}_live[{}];", l.name, l.kept()));
    for (size_t g = 0; g < l.side.guards.size(); ++g)
      out_.line(fmt::format("{} {}_guard{}[{}];", index, l.name, g, l.kept()));
    out_.pragma("#pragma unroll");
    out_.open(fmt::format("for (int i = 0; i < {}; ++i)", l.kept()));
    out_.line(fmt::format("const {} row = {} + static_cast<unsigned>({}_row + i * {});",
                          text_.unsigned_type(), first_of(l), l.name, l.step));
    text_.decode(out_, l.list, "row");
    out_.line(fmt::format("{}_at[i] = {};", l.name, text_.fixed(l.side.address, c_.folded)));
    for (size_t g = 0; g < l.side.guards.size(); ++g)
      out_.line(
          fmt::format("{}_guard{}[i] = {};", l.name, g, text_.fixed(l.side.guards[g].index, c_.folded)));
    out_.line(fmt::format("{}_live[i] = {};", l.name, live(l)));
    out_.close();
  }

  std::string live(const Load& l) const {
    const std::string there = fmt::format("row < {}", text_.number(l.extent));
    if (l.partial) return fmt::format("t < {} && {}", fold_step_ * l.tile / l.vector, there);
    return l.extent % l.tile == 0 ? "true" : there;
  }

  /// load_a(k0): what the thread brings of the 16 folded elements from k0 on, into registers.
  void loader(const Load& l) {
    const std::string type = fmt::format("Vec<{}, {}>", memory_type(c_.operand), l.vector);
    out_.line(fmt::format("{} {}_next[{}];", type, l.name, l.each));
    out_.open(fmt::format("const auto load_{} = [&]({} k0)", l.name, text_.unsigned_type()));
    out_.pragma("#pragma unroll");
    out_.open(fmt::format("for (int i = 0; i < {}; ++i)", l.each));
    out_.line(fmt::format("const {} k = k0 + static_cast<unsigned>({}_fold{});", text_.unsigned_type(),
                          l.name, l.along_fold ? "" : fmt::format(" + i * {}", l.step)));
    text_.decode(out_, c_.folded, "k");
    const char* kept = l.along_fold ? "i" : "0";
    std::string condition = fmt::format("{}_live[{}]", l.name, kept);
    if (folded_ % fold_step_ != 0) condition += " && k < end";
    for (size_t g = 0; g < l.side.guards.size(); ++g)
      condition += " && " + text_.inside(fmt::format("{}_guard{}[{}] + {}", l.name, g, kept,
                                                     text_.moving(l.side.guards[g].index, c_.folded)),
                                         l.side.guards[g]);
    out_.line(type + " x{};");
    out_.line(fmt::format("if ({}) x = esp_load<{}>({} + ({}_at[{}] + {}));", condition, l.vector, l.name,
                          l.name, kept, text_.moving(l.side.address, c_.folded)));
    out_.line(fmt::format("{}_next[i] = x;", l.name));
    out_.close();
    close_function();
  }

  /// put_a(): those registers into the tile, widened where no tensor core takes them as they are.
  void putter(const Load& l) {
    out_.open(fmt::format("const auto put_{} = [&]()", l.name));
    if (l.partial) out_.line(fmt::format("if (t >= {}) return;", fold_step_ * l.tile / l.vector));
    out_.pragma("#pragma unroll");
    out_.open(fmt::format("for (int i = 0; i < {}; ++i)", l.each));
    const std::string step = fmt::format(" + i * {}", l.step);
    const std::string fold = fmt::format("{}_fold{}", l.name, l.along_fold ? "" : step),
                      row = fmt::format("{}_row{}", l.name, l.along_fold ? step : "");
    const auto at = [&](const char* fold_lane, const char* row_lane) {
      return matrix_ ? fmt::format("({}{}) * {} + {}{}", row, row_lane, pitch(l), fold, fold_lane)
                     : fmt::format("({}{}) * {} + {}{}", fold, fold_lane, pitch(l), row, row_lane);
    };
    if (matrix_ && l.along_fold) {
      out_.line(
          fmt::format("esp_store<{}>({}_tile + {}, {}_next[i]);", l.vector, l.name, at("", ""), l.name));
    } else {
      const std::string element = fmt::format("{}_next[i].v[l]", l.name);
      out_.pragma("#pragma unroll");
      out_.line(fmt::format("for (int l = 0; l < {}; ++l) {}_tile[{}] = static_cast<{}>({});", l.vector,
                            l.name, l.along_fold ? at(" + l", "") : at("", " + l"), tile_type(),
                            matrix_ ? element : from_memory(element, c_.operand)));
    }
    out_.close();
    close_function();
  }
  void close_function() {
    out_.close();
    out_.line(";");
  }

  /// Which of the tile's rows (or columns) is number i of those of the thread that stands at `at` of 16.
  std::string own(const std::string& i, const char* at, int mine) const {
    const int w = std::min(mine, wide_);
    return fmt::format("{0} / {1} * {2} + {3} * {1} + {0} % {1}", i, w, 16 * w, at);
  }

  void registers(const char* to, const Load& l, const char* at, int mine) {
    const int w = std::min(mine, wide_);
    out_.line(fmt::format("{} {}[{}];", text_.sum_type(), to, mine));
    out_.pragma("#pragma unroll");
    out_.open(fmt::format("for (int i = 0; i < {}; ++i)", mine / w));
    out_.line(fmt::format("const Vec<{}, {}> part = esp_load<{}>({}_tile + kk * {} + i * {} + {} * {});",
                          text_.sum_type(), w, w, l.name, pitch(l), 16 * w, at, w));
    out_.pragma("#pragma unroll");
    out_.line(fmt::format("for (int l = 0; l < {0}; ++l) {1}[i * {0} + l] = part.v[l];", w, to));
    out_.close();
  }

  void sums() {
    if (matrix_) {
      out_.line("const int lane = t % 32, lane_row = lane / 4, lane_pair = lane % 4 * 2;");
      out_.line(fmt::format("const int warp_row = t / 32 / {0} * {1}, warp_column = t / 32 % {0} * {2};",
                            warp_columns, a_->tile / warp_rows, b_->tile / warp_columns));
      out_.line(fmt::format("float sum[{}][{}][4];", matrix_rows(), matrix_columns()));
      each_matrix("for (int e = 0; e < 4; ++e) sum[i][j][e] = 0;");
    } else {
      out_.line("const int row_at = t / 16, column_at = t % 16;");
      out_.line(fmt::format("{} sum[{}][{}];", text_.sum_type(), mine_rows_, mine_columns_));
      each_sum("sum[i][j] = 0;");
    }
    out_.line("load_a(begin);");
    out_.line("load_b(begin);");
    out_.open(fmt::format("for ({} k0 = begin; k0 < end; k0 += {})", text_.unsigned_type(), fold_step_));
    out_.line("put_a();");
    out_.line("put_b();");
    out_.line("__syncthreads();");
    out_.open(fmt::format("if (k0 + {} < end)", fold_step_));
    out_.line(fmt::format("load_a(k0 + {});", fold_step_));
    out_.line(fmt::format("load_b(k0 + {});", fold_step_));
    out_.close();
    if (matrix_) matrix_products();
    else products();
    out_.line("__syncthreads();");
    out_.close();
  }

  void products() {
    out_.pragma("#pragma unroll");
    out_.open(fmt::format("for (int kk = 0; kk < {}; ++kk)", fold_step_));
    registers("x", *a_, "row_at", mine_rows_);
    registers("y", *b_, "column_at", mine_columns_);
    each_sum(fmt::format("sum[i][j] = {};", text_.multiply_add("x[i]", "y[j]", "sum[i][j]")));
    out_.close();
  }

  /// Squares of 16 by 8 that a warp has below each other, and beside each other.
  int matrix_rows() const { return a_->tile / warp_rows / 16; }
  int matrix_columns() const { return b_->tile / warp_columns / 8; }

  void matrix_products() {
    out_.pragma("#pragma unroll");
    out_.open(fmt::format("for (int kk = 0; kk < {}; kk += 16)", fold_step_));
    out_.line(fmt::format("unsigned x[{}][4], y[{}][2];", matrix_rows(), matrix_columns()));
    out_.pragma("#pragma unroll");
    out_.open(fmt::format("for (int i = 0; i < {}; ++i)", matrix_rows()));
    out_.line(
        fmt::format("const {}* const p = a_tile + (warp_row + i * 16 + lane_row) * {} + kk + lane_pair;",
                    tile_type(), pitch(*a_)));
    out_.pragma("#pragma unroll");
    out_.line(fmt::format("for (int e = 0; e < 4; ++e) x[i][e] = esp_pair(p + e % 2 * {} + e / 2 * 8);",
                          8 * pitch(*a_)));
    out_.close();
    out_.pragma("#pragma unroll");
    out_.open(fmt::format("for (int j = 0; j < {}; ++j)", matrix_columns()));
    out_.line(
        fmt::format("const {}* const p = b_tile + (warp_column + j * 8 + lane_row) * {} + kk + lane_pair;",
                    tile_type(), pitch(*b_)));
    out_.line("y[j][0] = esp_pair(p);");
    out_.line("y[j][1] = esp_pair(p + 8);");
    out_.close();
    each_matrix(fmt::format("esp_mma_{}(sum[i][j], x[i], y[j]);", dtype_name(c_.operand)));
    out_.close();
  }

  void each_matrix(const std::string& line) {
    out_.pragma("#pragma unroll");
    out_.line(fmt::format("for (int i = 0; i < {}; ++i)", matrix_rows()));
    out_.pragma("#pragma unroll");
    out_.line(fmt::format("  for (int j = 0; j < {}; ++j) {}", matrix_columns(), line));
  }

  void each_sum(const std::string& line) {
    out_.pragma("#pragma unroll");
    out_.line(fmt::format("for (int i = 0; i < {}; ++i)", mine_rows_));
    out_.pragma("#pragma unroll");
    out_.line(fmt::format("  for (int j = 0; j < {}; ++j) {}", mine_columns_, line));
  }

  int together(int neighbours) const {
    return std::min(neighbours, vector_along(c_, c_.c, c_.columns, c_.result, p_.alignment[2]));
  }

  void results() {
    const int step = together(std::min(mine_columns_, wide_));
    out_.pragma("#pragma unroll");
    out_.open(fmt::format("for (int i = 0; i < {}; ++i)", mine_rows_));
    row_of_results(own("i", "row_at", mine_rows_));
    out_.pragma("#pragma unroll");
    out_.open(fmt::format("for (int j = 0; j < {}; j += {})", mine_columns_, step));
    results_at(own("j", "column_at", mine_columns_), step, "sum[i][j + l]");
    out_.close();
    out_.close();
  }

  void matrix_results() {
    const int step = together(2);
    out_.pragma("#pragma unroll");
    out_.open(fmt::format("for (int i = 0; i < {}; ++i)", 2 * matrix_rows()));
    row_of_results("warp_row + i / 2 * 16 + i % 2 * 8 + lane_row");
    out_.pragma("#pragma unroll");
    out_.open(fmt::format("for (int j = 0; j < {}; j += {})", 2 * matrix_columns(), step));
    results_at("warp_column + j / 2 * 8 + lane_pair + j % 2", step,
               "sum[i / 2][j / 2][i % 2 * 2 + j % 2 + l]");
    out_.close();
    out_.close();
  }

  void row_of_results(const std::string& at) {
    out_.line(fmt::format("const {} row = row0 + static_cast<unsigned>({});", text_.unsigned_type(), at));
    text_.decode(out_, c_.rows, "row");
  }

  /// `step` neighbours from column `at` of the tile on; `sum` is that of neighbour l.
  void results_at(const std::string& at, int step, const std::string& sum) {
    out_.line(
        fmt::format("const {} column = column0 + static_cast<unsigned>({});", text_.unsigned_type(), at));
    text_.decode(out_, c_.columns, "column");
    std::string condition;
    if (rows_ % a_->tile != 0) condition += fmt::format(" && row < {}", text_.number(rows_));
    if (columns_ % b_->tile != 0) condition += fmt::format(" && column < {}", text_.number(columns_));
    condition += text_.all_inside(c_.c);
    out_.open(condition.empty() ? "" : fmt::format("if ({})", condition.substr(4)));
    out_.line(fmt::format("Vec<{}, {}> to;", text_.result_type(), step));
    out_.pragma("#pragma unroll");
    out_.line(fmt::format("for (int l = 0; l < {}; ++l) to.v[l] = {};", step, text_.stored(sum)));
    out_.line(fmt::format("esp_store<{}>(c + ({}), to);", step, text_.fixed(c_.c.address, {})));
    out_.close();
  }

  const ContractionPart& p_;
  const Contraction& c_;
  ContractionText text_;
  int64_t rows_, columns_, folded_;
  int wide_;     // sums that shared memory gives at once
  bool matrix_;  // by tensor cores
  int fold_step_;
  int mine_rows_ = 1, mine_columns_ = 1;
  std::unique_ptr<Load> a_, b_;
  Source out_{1};
};

}  // namespace

ContractionKernel tiled_kernel(const ContractionPart& part) { return Tiled(part).kernel(); }
int64_t tiled_blocks(const ContractionPart& part) { return Tiled(part).blocks(); }

}  // namespace espalier::target::cuda
