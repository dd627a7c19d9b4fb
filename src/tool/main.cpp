// The command line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <new>
#include <system_error>

#include "base/file.h"
#include "base/text.h"
#include "tool/commands.h"

namespace {

/// A first word that is no command: named, with those there are.
void check_command(const CLI::App& app, const std::string& word) {
  if (word.empty() || word[0] == '-') return;
  std::vector<std::string> names;
  for (const CLI::App* c : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (c->get_name() == word) return;
    names.push_back(c->get_name());
  }
  throw espalier::UserError(
      {"--help lists the commands", "there is none of that name", word, espalier::join(names, " ")});
}

int report(const std::string& problem, int code) {
  fmt::print(stderr, "espalier: {}\n", problem);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace espalier;
  std::signal(SIGXFSZ, SIG_IGN);  // beyond `ulimit -f` a write fails, as on a full disk
  CLI::App app{
      "Espalier trains neural networks, makes them smaller and faster, and runs them: one graph from the "
      "first gradient to the served prediction."};
  app.name("espalier");
  app.set_version_flag("--version", ESPALIER_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Each command has --help with examples, and all but demo --json for one JSON object on standard "
      "output.\n"
      "Exit codes: 0 done; 1 a bug of Espalier's own; 2 a wrong call; 3 bad input (a file, data that does "
      "not fit, a loss that is not finite); 4 the machine (no space, no permission to write, no memory); "
      "130 interrupted.");
  int exit_code = 0;
  tool::add_demo(app, exit_code);
  tool::add_devices(app, exit_code);
  tool::add_train(app, exit_code);
  tool::add_optimise(app, exit_code);
  tool::add_run(app, exit_code);
  tool::add_bench(app, exit_code);
  tool::add_inspect(app, exit_code);
  tool::add_profile(app, exit_code);
  tool::add_tune(app, exit_code);
  tool::add_compile(app, exit_code);
  try {
    check_command(app, argc > 1 ? argv[1] : "");
    app.parse(argc, argv);
    if (std::fflush(stdout) != 0)
      throw std::system_error(errno, std::generic_category(), "standard output cannot be written");
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : tool::exit_usage;
  } catch (const WriteError& e) {
    return report(e.what(), tool::exit_machine);
  } catch (const UserError& e) {
    return report(e.what(), e.fields().where.starts_with("--") ? tool::exit_usage : tool::exit_input);
  } catch (const std::system_error& e) {  // of files and of standard output
    return report(e.what(), tool::exit_machine);
  } catch (const std::bad_alloc&) {
    return report("out of memory", tool::exit_machine);
  } catch (const std::exception& e) {
    return report(std::string("internal error: ") + e.what(), tool::exit_internal);
  }
  return exit_code;
}
