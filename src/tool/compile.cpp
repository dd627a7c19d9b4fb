// espalier compile: the kernels of a program, compiled beforehand for machines that have a GPU's driver and no compiler.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <set>

#include "base/text.h"
#include "run/device_program.h"
#include "target/cuda/cuda_target.h"
#include "target/cuda/plugin.h"
#include "tensor/precision_text.h"
#include "tool/commands.h"
#include "tool/json.h"
#include "tool/subject.h"

namespace espalier::tool {

namespace {

namespace cuda = target::cuda;

/// What the machine may lack of cuBLASLt and cuDNN: where one is missing, kernels of ours take its place.
std::vector<cuda::MissingLibraries> machines(const std::string& libraries) {
  const std::string why = "it is not wanted";
  if (libraries == "all") return {{}};
  if (libraries == "none") return {{.cublaslt = why, .cudnn = why}};
  return {
      {}, {.cublaslt = why, .cudnn = ""}, {.cublaslt = "", .cudnn = why}, {.cublaslt = why, .cudnn = why}};
}

/// Every kernel of the subject on a device of that architecture, with any of these sets of libraries.
std::vector<target::KernelSource> sources_of(const SubjectFunction& subject, const Trace& traced, int arch,
                                             const std::string& libraries) {
  std::vector<target::KernelSource> all;
  std::set<std::string> names;
  for (const cuda::MissingLibraries& missing : machines(libraries)) {
    run::CompileOptions o;
    o.target = &cuda::cuda_target(arch, missing);
    o.precision = pass::precision_of_name(subject.options.precision);
    o.exact = subject.options.exact;
    o.allow_tf32 = subject.options.allow_tf32;
    o.disabled = subject.options.disabled_passes;
    for (target::KernelSource& s : run::kernel_sources(*run::Program::compile(traced.graph, o)))
      if (names.insert(s.name).second) all.push_back(std::move(s));
  }
  return all;
}

struct Options {
  SubjectOptions subject;
  std::vector<int> arches{90};
  std::string libraries = "any", output;
  bool json = false;
};

void run_compile(const Options& o) {
  const SubjectFunction subject = subject_function(o.subject);
  const Trace traced = trace(subject.function, subject.types, subject.options);
  cuda::ImageRequest request{.sources = {}, .folder = o.output};
  int64_t kernels = 0;
  for (const int arch : o.arches) {
    request.sources[arch] = sources_of(subject, traced, arch, o.libraries);
    kernels = std::max(kernels, static_cast<int64_t>(request.sources[arch].size()));
  }
  const cuda::ImagesMade made = cuda::make_images(request);
  if (o.json) {
    fmt::print("{}\n", json_line({{"folder", o.output},
                                  {"kernels", kernels},
                                  {"made", made.made},
                                  {"kept", made.kept},
                                  {"bytes", made.bytes},
                                  {"compiler", made.compiler}}));
    return;
  }
  fmt::print("{}, batch {}, {}: {} kernels in {}\n{} images made by {}, {} were there, {} in all\n",
             subject.name, subject.batch,
             precision_text(subject.options.precision, subject.options.allow_tf32), kernels, o.output,
             made.made, made.compiler, made.kept, bytes_text(made.bytes));
}

}  // namespace

void add_compile(CLI::App& app, int&) {
  const auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand(
      "compile", "Compile a program's kernels beforehand, for GPUs of machines without NVRTC; needs no GPU");
  add_program_options(*c, o->subject);
  c->add_option("--arch", o->arches,
                "compute capabilities, as 90,100: code for each, and PTX of the newest for later ones")
      ->delimiter(',')
      ->check(CLI::Range(80, 999))
      ->capture_default_str();
  c->add_option(
       "--libraries", o->libraries,
       "that the machine has: all of cuBLASLt and cuDNN, none of them, or any (images for every case)")
      ->check(CLI::IsMember({"all", "none", "any"}))
      ->capture_default_str();
  c->add_option(
       "-o,--output", o->output,
       "a folder, to which images are added: name it in ESPALIER_KERNEL_IMAGES where the program runs")
      ->required();
  c->add_flag("--json", o->json, "one JSON object");
  c->footer(
      "Example:\n  espalier compile --net resnet50 --train --batch 32 --precision bf16 --arch 90 -o images\n"
      "  ESPALIER_KERNEL_IMAGES=images espalier bench --net resnet50 --train --batch 32 --precision bf16 "
      "--device cuda");
  c->callback([o] { run_compile(*o); });
}

}  // namespace espalier::tool
