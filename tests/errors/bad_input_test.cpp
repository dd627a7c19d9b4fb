// Wrong shapes, dtypes, ranks, axes, labels and options: each is a UserError that says where, what came and what is allowed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/threads.h"
#include "support/again.h"
#include "support/small_training.h"

namespace espalier {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Tensor ones(std::vector<int64_t> dims, Dtype dtype = Dtype::f32) {
  return Tensor::ones(std::move(dims), dtype);
}

struct Case {
  const char* name;
  std::function<void()> call;
  std::vector<std::string> says;  ///< parts of the message
};

void expect_errors(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    try {
      c.call();
      ADD_FAILURE() << c.name << ": no error";
    } catch (const UserError& e) {
      for (const std::string& part : c.says) EXPECT_THAT(e.what(), HasSubstr(part)) << c.name;
      EXPECT_FALSE(e.fields().where.empty()) << c.name << ": " << e.what();
      EXPECT_FALSE(e.fields().problem.empty()) << c.name << ": " << e.what();
    } catch (const std::exception& e) {
      ADD_FAILURE() << c.name << ": not a UserError: " << e.what();
    }
  }
}

TEST(BadInput, ShapesAndRanks) {
  expect_errors({
      {"add",
       [] {
         (void)(ones({2, 3}) + ones({4}));
       },
       {"[2,3]", "[4]"}},
      {"matmul inner",
       [] {
         matmul(ones({2, 3}), ones({4, 5}));
       },
       {"[2,3]", "[4,5]"}},
      {"matmul rank", [] { matmul(ones({3}), Tensor(1.0)); }, {}},
      {"broadcast_to",
       [] {
         ones({2, 3}).broadcast_to({4, 3});
       },
       {"[2,3]", "[4,3]"}},
      {"concat",
       [] {
         concat(std::vector<Tensor>{ones({2, 3}), ones({2, 4})}, 0);
       },
       {"[2,3]", "[2,4]"}},
      {"concat of nothing", [] { concat(std::vector<Tensor>{}, 0); }, {}},
      {"item", [] { ones({2}).item(); }, {"2"}},
      {"ragged rows",
       [] {
         Tensor::of({{1, 2}, {3, 4, 5}});
       },
       {}},
      {"gradient of no scalar",
       [] {
         const Tensor x = ones({2});
         grad(x * x, std::vector<Tensor>{x});
       },
       {"f32[2]"}},
      {"empty tensor", [] { (void)(Tensor() + ones({2})); }, {}},
      {"negative dim",
       [] {
         ones({2, -3});
       },
       {"-3"}},
  });
}

TEST(BadInput, NumbersThatADtypeHasNot) {
  expect_errors({
      {"full of a fraction", [] { Tensor::full({2}, 0.5, Dtype::i32); }, {"0.5", "i32"}},
      {"full beyond", [] { Tensor::full({2}, 300, Dtype::u8); }, {"300", "u8", "0 to 255"}},
      {"full of NaN", [] { Tensor::full({2}, NAN, Dtype::i64); }, {"nan", "i64"}},
      {"full beyond i64", [] { Tensor::full({2}, 0x1p63, Dtype::i64); }, {"i64"}},
      {"full of bool", [] { Tensor::full({2}, 2, Dtype::boolean); }, {"bool", "0 to 1"}},
      {"operator", [] { (void)(ones({2}, Dtype::u8) + -1); }, {"-1", "u8"}},
      {"to_vector", [] { (void)ones({2}).to_vector<double>(); }, {"to_vector", "f64", "f32"}},
  });
  EXPECT_EQ(Tensor::full({1}, -0x1p63, Dtype::i64).array().at(0), -0x1p63);
  EXPECT_EQ(Tensor::full({1}, 255, Dtype::u8).item(), 255);
}

TEST(BadInput, ArgumentsAndResultsThatAStepHasNot) {
  const Parameter p(Array::of<float>({2}, {1, 2}), true, "p");
  Compiled f = compile([&](const std::vector<Tensor>& in) {
    p.assign(p.tensor() + in[0]);
    return std::vector<Tensor>{in[0] * 2};
  });
  Step& step = f.step(std::vector<ir::Type>{{Dtype::f32, {2}}});
  expect_errors({
      {"result", [&] { (void)step.result(7); }, {"result", "7", "below 1"}},
      {"the state's side", [&] { (void)step.output(1); }, {"result", "1"}},
      {"result type", [&] { (void)step.result_type(1); }, {"result", "1"}},
      {"input", [&] { (void)step.input(1); }, {"argument", "1"}},
      {"argument type", [&] { (void)step.argument_type(9); }, {"argument", "9"}},
      {"set_input", [&] { step.set_input(1, Array(Dtype::f32, {2})); }, {"argument", "1"}},
      {"clip_by_norm", [] { nn::clip_by_norm(std::vector<Tensor>{ones({2})}, -1); }, {"clip_by_norm", "-1"}},
      {"fake data", [] { data::FakeData(0, {}); }, {"FakeData", "0"}},
  });
}

TEST(BadInput, Reshapes) {
  const auto to = [](Dims dims) { return [dims] { ones({2, 3}).reshape(dims); }; };
  expect_errors({
      {"other count", to({4, 2}), {"reshape", "[2,3]", "[4,2]"}},
      {"two unknown", to({-1, -1}), {"reshape", "-1"}},
      {"unknown that does not divide", to({-1, 4}), {"reshape", "[2,3]", "[-1,4]"}},
      {"unknown beside zero", to({-1, 0}), {"reshape", "[2,3]", "[-1,0]"}},
      {"negative", to({-2, -3}), {"[-2,-3]"}},
  });
}

TEST(BadInput, ShapesOfLayers) {
  nn::Init init(1);
  const nn::Linear linear(4, 2, init);
  const nn::Conv2d conv(3, 8, 3, {}, init);
  const nn::BatchNorm norm(8);
  expect_errors({
      {"linear",
       [&] {
         linear(ones({5, 3}));
       },
       {"[5,3]", "[4,2]"}},
      {"conv channels",
       [&] {
         conv(ones({1, 8, 8, 4}));
       },
       {"conv", "4", "3"}},
      {"conv rank",
       [&] {
         conv(ones({8, 8, 3}));
       },
       {"conv"}},
      {"conv kernel larger than picture",
       [&] {
         conv(ones({1, 2, 8, 3}));
       },
       {"conv", "2"}},
      {"pool larger than picture",
       [] {
         nn::max_pool2d(ones({1, 2, 2, 3}), 3);
       },
       {"max_pool"}},
      {"pool of nothing",
       [] {
         nn::max_pool2d(ones({1, 2, 2, 3}), 0);
       },
       {"max_pool"}},
      {"global pool", [] { nn::global_avg_pool(ones({3})); }, {"global_avg_pool", "[3]"}},
      {"batch norm",
       [&] {
         norm(ones({2, 4, 4, 3}), nn::Mode::eval);
       },
       {"batch_norm"}},
  });
}

TEST(BadInput, SizesOfLayers) {
  nn::Init init(1);
  const auto conv = [&](nn::ConvOptions o, int64_t in = 4, int64_t out = 8, int64_t kernel = 3) {
    return [&init, o, in, out, kernel] { nn::Conv2d(in, out, kernel, o, init); };
  };
  const auto up = [&](int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding) {
    return [&init, in, out, kernel, stride, padding] {
      nn::ConvTranspose2d(in, out, kernel, {.stride = stride, .padding = padding}, init);
    };
  };
  expect_errors({
      {"linear in", [&] { nn::Linear(0, 2, init); }, {"Linear", "in", "0"}},
      {"linear out", [&] { nn::Linear(2, -1, init); }, {"Linear", "out", "-1"}},
      {"conv groups", conv({.groups = 0}), {"Conv2d", "groups", "0"}},
      {"conv groups of inputs", conv({.groups = 2}, 3), {"Conv2d", "in", "3", "2"}},
      {"conv groups of outputs", conv({.groups = 2}, 4, 7), {"Conv2d", "out", "7", "2"}},
      {"conv in", conv({}, 0), {"Conv2d", "in", "0"}},
      {"conv out", conv({}, 4, 0), {"Conv2d", "out", "0"}},
      {"conv kernel", conv({}, 4, 8, 0), {"Conv2d", "kernel", "0"}},
      {"conv stride", conv({.stride = 0}), {"Conv2d", "stride", "0"}},
      {"conv padding", conv({.padding = -1}), {"Conv2d", "padding", "-1"}},
      {"conv dilation", conv({.dilation = 0}), {"Conv2d", "dilation", "0"}},
      {"transposed in", up(0, 2, 2, 2, 0), {"ConvTranspose2d", "in"}},
      {"transposed out", up(2, 0, 2, 2, 0), {"ConvTranspose2d", "out"}},
      {"transposed kernel", up(2, 2, 0, 2, 0), {"ConvTranspose2d", "kernel"}},
      {"transposed stride", up(2, 2, 2, 0, 0), {"ConvTranspose2d", "stride"}},
      {"transposed padding", up(2, 2, 2, 2, -1), {"ConvTranspose2d", "padding"}},
      {"batch norm", [] { nn::BatchNorm(0); }, {"BatchNorm", "0"}},
      {"layer norm", [] { nn::LayerNorm(0); }, {"LayerNorm", "0"}},
      {"group norm groups", [] { nn::GroupNorm(0, 4); }, {"GroupNorm", "groups", "0"}},
      {"group norm channels", [] { nn::GroupNorm(3, 4); }, {"GroupNorm", "channels", "4", "3"}},
      {"embedding", [&] { nn::Embedding(0, 4, init); }, {"Embedding", "count", "0"}},
      {"dropout", [&] { nn::Dropout(1, init); }, {"dropout", "1"}},
  });
}

TEST(BadInput, Losses) {
  const Tensor logits = ones({4, 3}), labels = ones({4}, Dtype::i32);
  expect_errors({
      {"cross entropy",
       [&] { nn::cross_entropy(logits, ones({5}, Dtype::i32)); },
       {"cross_entropy", "[5]", "[4]"}},
      {"mse", [&] { nn::mse(logits, ones({5})); }, {"[4,3]", "[5]"}},
      {"bce", [&] { nn::bce_with_logits(logits, ones({4})); }, {"[4,3]", "[4]"}},
      {"dice",
       [&] {
         nn::dice_loss(logits, ones({4, 1}));
       },
       {"dice_loss", "[4,3]", "[4,1]"}},
      {"dice dtypes",
       [&] {
         nn::dice_loss(logits, ones({4, 3}, Dtype::i32));
       },
       {"dice_loss", "f32", "i32"}},
      {"dice of a scalar", [] { nn::dice_loss(Tensor(1.0), Tensor(1.0)); }, {"dice_loss", "f32[]"}},
      {"accuracy",
       [&] {
         nn::accuracy(logits, ones({4, 1}, Dtype::i32));
       },
       {"accuracy", "[4,1]", "[4]"}},
      {"accuracy of one label", [&] { nn::accuracy(logits, ones({1}, Dtype::i64)); }, {"accuracy", "[1]"}},
      {"accuracy of float labels", [&] { nn::accuracy(logits, ones({4})); }, {"accuracy", "f32[4]", "i32"}},
      {"accuracy of integers",
       [&] {
         nn::accuracy(ones({4, 3}, Dtype::i32), labels);
       },
       {"accuracy", "i32"}},
      {"accuracy of a scalar", [&] { nn::accuracy(Tensor(1.0), labels); }, {"accuracy", "f32[]"}},
  });
}

TEST(BadInput, Dtypes) {
  nn::Init init(1);
  const nn::Embedding table(4, 2, init);
  const Parameter p(Array::of<float>({2}, {1, 2}), true, "weights");
  expect_errors({
      {"add", [] { (void)(ones({2}) + ones({2}, Dtype::i32)); }, {"f32", "i32"}},
      {"matmul",
       [] {
         matmul(ones({2, 2}), ones({2, 2}, Dtype::bf16));
       },
       {"f32", "bf16"}},
      {"where", [] { where(ones({2}), ones({2}), ones({2})); }, {"bool", "f32"}},
      {"exp of integers", [] { ones({2}, Dtype::i32).exp(); }, {"exp", "i32"}},
      {"ids of floats", [&] { table(ones({3})); }, {"f32"}},
      {"labels of floats",
       [] {
         nn::cross_entropy(ones({4, 3}), ones({4}));
       },
       {"f32"}},
      {"assign dims", [&] { p.assign(ones({3})); }, {"weights", "f32[3]", "f32[2]"}},
      {"assign dtype", [&] { p.assign(ones({2}, Dtype::f64)); }, {"weights", "f64[2]", "f32[2]"}},
      {"gradient of integers",
       [] {
         const Tensor x = ones({2}, Dtype::i32);
         grad(x.sum(), std::vector<Tensor>{x});
       },
       {"i32"}},
  });
}

TEST(BadInput, Axes) {
  const Tensor x = ones({2, 3});
  expect_errors({
      {"sum", [&] { x.sum({2}); }, {"2"}},
      {"sum twice",
       [&] {
         x.sum({0, 0});
       },
       {}},
      {"argmax", [&] { x.argmax(5); }, {"5"}},
      {"softmax", [&] { softmax(x, 2); }, {"softmax", "2"}},
      {"transpose",
       [&] {
         x.transpose({0, 2});
       },
       {"transpose"}},
      {"transpose twice",
       [&] {
         x.transpose({1, 1});
       },
       {"transpose"}},
      {"slice", [&] { x.slice(1, 2, 5); }, {"slice"}},
      {"slice axis", [&] { x.slice(4, 0, 1); }, {"4"}},
      {"dim", [&] { (void)x.dim(-3); }, {"-3"}},
      {"concat",
       [&] {
         concat(std::vector<Tensor>{x, x}, 2);
       },
       {"2"}},
  });
}

TEST(BadInput, CompiledFunctions) {
  const Tensor x = ones({2});
  const auto same = [](const std::vector<Tensor>& in) { return in; };
  const Model model = Model::traced(same, std::vector{ir::Type{Dtype::f32, {2, 3}}}, {.name = "copy"});
  expect_errors({
      {"precision", [&] { compile(same, {.precision = "f8"})({x}); }, {"f8", "bf16"}},
      {"target", [&] { compile(same, {.device = Device::named("tpu")})({x}); }, {"tpu", "cpu"}},
      {"pass", [&] { compile(same, {.disabled_passes = {"magic"}})({x}); }, {"magic", "simplify"}},
      {"model arguments",
       [&] {
         model({x, x});
       },
       {"copy", "2", "1"}},
      {"model dims", [&] { model({x}); }, {"copy", "x0", "f32[2]", "f32[2,3]"}},
      {"step argument",
       [&] {
         Compiled c = compile(same, {.argument_names = {"image"}});
         c.step(std::vector{ir::Type{Dtype::f32, {2}}}).set_input(0, Array(Dtype::f32, {3}));
       },
       {"image", "f32[3]", "f32[2]"}},
      {"value inside a trace",
       [&] { compile([](const std::vector<Tensor>& in) { return (void)in[0].item(), in; })({ones({1})}); },
       {}},
      {"empty result",
       [&] { compile([](const std::vector<Tensor>&) { return std::vector<Tensor>(1); })({x}); },
       {"result 0"}},
      {"argument names",
       [&] {
         compile(same, {.argument_names = {"image", "image"}})({x, x});
       },
       {"image"}},
      {"argument name and default",
       [&] {
         compile(same, {.argument_names = {"x1"}})({x, x});
       },
       {"x1"}},
      {"result names",
       [&] {
         compile(same, {.result_names = {"y", "y"}})({x, x});
       },
       {"two", "y"}},
      {"threads", [] { set_threads(0); }, {"0"}},
  });
}

TEST(BadInput, LabelsOutOfRange) {
  for (const char* target : {"cpu", "reference"}) {
    Compiled loss = compile(
        [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
          return {nn::cross_entropy(in[0], in[1])};
        },
        {.device = Device::named(target),
         .argument_ranges = {{1, {0, 3}}},
         .argument_names = {"logits", "label"}});
    const auto call = [&](double label) {
      return [&loss, label] { loss({ones({2, 3}), Tensor::of({0, label}, Dtype::i32)}); };
    };
    expect_errors({{"above", call(3), {"label", "3"}}, {"below", call(-1), {"label", "-1"}}});
    call(2)();
  }
}

TEST(BadInput, TrainerOptionsAndBatches) {
  nn::Init init(1);
  nn::Linear net(3, 1, init);
  nn::Sgd sgd(parameters_of(net));
  const auto samples =
      std::make_shared<data::FakeData>(10, std::vector<data::FakeField>{{"x", {Dtype::f32, {3}}}});
  data::DataLoader loader(samples, {.batch_size = 4});
  const auto train = [&](const train::LossFn& loss, train::TrainerOptions options) {
    train::Trainer(loss, parameters_of(net), sgd, loader, std::move(options)).fit();
  };
  const auto mean = [&](const std::vector<Tensor>& b) { return std::vector<Tensor>{net(b[0]).mean()}; };
  expect_errors({
      {"epochs", [&] { train(mean, {.epochs = -1}); }, {"epochs", "-1"}},
      {"no loss",
       [&] { train([](const std::vector<Tensor>&) { return std::vector<Tensor>{}; }, {}); },
       {"loss"}},
      {"vector for a loss",
       [&] { train([&](const std::vector<Tensor>& b) { return std::vector<Tensor>{net(b[0])}; }, {}); },
       {"f32[4,1]"}},
      {"batch size", [&] { data::DataLoader(samples, {.batch_size = 0}); }, {"0"}},
  });
}

TEST(BadInput, ALabelOutOfRangeEndsTheTraining) {
  const test::TemporaryFolder folder;
  Array labels(Dtype::i32, {12});
  labels.write<int32_t>()[7] = 3;  // sample 7 is the second of the fourth batch
  const Array x = Tensor::randn({12, 3}, 2).array();
  nn::Init init(1);
  nn::Linear net(3, 3, init);
  nn::Sgd sgd(parameters_of(net));
  data::DataLoader loader(
      std::make_shared<data::ArrayDataset>(std::vector<data::NamedArray>{{"x", x}, {"label", labels}}),
      {.batch_size = 2});
  train::Trainer trainer(
      [&](const std::vector<Tensor>& b) { return std::vector<Tensor>{nn::cross_entropy(net(b[0]), b[1])}; },
      parameters_of(net), sgd, loader,
      {.checkpoint = folder / "checkpoint", .argument_ranges = {{1, {0, 3}}}});
  expect_errors({{"label",
                  [&] { trainer.fit(); },
                  {"step 4", "epoch 1", "batch 4", "input label, element 1", "out of range", "3", "0"}}});
  EXPECT_EQ(trainer.steps_done(), 3);
  EXPECT_FALSE(std::filesystem::exists(folder / "checkpoint"));
}

/// Mean squares of a layer on 12 samples, 6 batches an epoch.
struct Fragile {
  Fragile(const Array& x, train::TrainerOptions options)
      : loader(std::make_shared<data::ArrayDataset>(std::vector<data::NamedArray>{{"x", x}}),
               {.batch_size = 2}),
        trainer(
            [this](const std::vector<Tensor>& b) { return std::vector<Tensor>{net(b[0]).square().mean()}; },
            cells, sgd, loader, std::move(options)) {}
  nn::Init init{1};
  nn::Linear net{3, 1, init};
  std::vector<Parameter> cells = parameters_of(net);
  nn::Sgd sgd{cells};
  data::DataLoader loader;
  train::Trainer trainer;
};

TEST(BadInput, ALossThatIsNotFiniteEndsTheTraining) {
  const test::TemporaryFolder folder;
  const auto path = folder / "checkpoint";
  Array x(Dtype::f32, {12, 3});
  x.write<float>()[3 * 7] = std::nanf("");  // sample 7 is in the fourth batch
  Fragile run(x, {.checkpoint = path});
  expect_errors({{"nan", [&] { run.trainer.fit(); }, {"step 4", "epoch 1", "batch 4", "nan"}}});
  EXPECT_FALSE(std::filesystem::exists(path)) << "a checkpoint of broken weights";
}

TEST(BadInput, ADivergingTrainingKeepsItsLastCheckpoint) {
  const test::TemporaryFolder folder;
  const auto path = folder / "checkpoint";
  const Array x = Tensor::randn({12, 3}, 2).array();
  Fragile sound(x, {.epochs = 1, .rate = nn::constant_rate(0.01), .checkpoint = folder / "sound"});
  sound.trainer.fit();
  Fragile run(x,
              {.epochs = 5, .rate = [](int64_t step) { return step < 6 ? 0.01 : 1e20; }, .checkpoint = path});
  expect_errors({{"divergence",
                  [&] { run.trainer.fit(); },
                  {"epoch 2", "not finite", path.string(), "learning rate"}}});
  EXPECT_TRUE(test::file_text(path) == test::file_text(folder / "sound"))
      << "not the checkpoint of the first epoch";
}

/// What the process with a cache of its own does.
TEST(ObjectCache, DISABLED_Compute) {
  const Tensor x = Tensor::randn({7, 33}, 1), y = (x * 3 + 1).tanh();
  std::printf("sum %a, largest %a\n", y.sum().item(), (y - x).max().item());
}

TEST(ObjectCache, DamagedFilesAreCompiledAgain) {
  const test::TemporaryFolder folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_all);
  const auto result = [&] {
    const test::Outcome o =
        test::run_again("ObjectCache.DISABLED_Compute", "ESPALIER_CACHE_DIR=" + folder.path().string());
    EXPECT_EQ(o.code, 0) << o.output;
    const size_t at = o.output.find("sum ");
    return at == std::string::npos ? o.output : o.output.substr(at, o.output.find('\n', at) - at);
  };
  const std::string want = result();
  EXPECT_THAT(want, HasSubstr("largest"));
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder.path()))
    if (entry.is_regular_file()) files.push_back(entry.path());
  ASSERT_FALSE(files.empty()) << "nothing was cached";
  const std::vector<std::function<void(std::string&)>> damages{
      [](std::string& s) { s[s.size() / 2] = static_cast<char>(s[s.size() / 2] ^ 0x40); },
      [](std::string& s) { s[0] = static_cast<char>(~s[0]); },
      [](std::string& s) { s.back() = static_cast<char>(~s.back()); },
      [](std::string& s) { s.resize(s.size() / 2); },
      [](std::string& s) { s.clear(); },
      [](std::string& s) { s.assign(s.size(), '\xff'); },
  };
  for (const auto& damage : damages) {
    for (const std::filesystem::path& file : files) {
      std::string text = test::file_text(file);
      damage(text);
      std::ofstream(file, std::ios::binary) << text;
    }
    EXPECT_EQ(result(), want);
    for (const std::filesystem::path& file : files)
      EXPECT_GT(std::filesystem::file_size(file), 100u) << "not written again";
  }
}

}  // namespace
}  // namespace espalier
