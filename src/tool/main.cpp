// The command line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/error.h"
#include "tool/commands.h"

int main(int argc, char** argv) {
  using namespace espalier;
  CLI::App app{
      "Espalier trains neural networks, makes them smaller and faster, and runs them: one graph from the "
      "first "
      "gradient to the served prediction."};
  app.name("espalier");
  app.set_version_flag("--version", ESPALIER_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Each command has --help with examples.\nExit codes: 0 done, 1 internal error, 2 wrong call or input, "
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
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : tool::exit_user;
  } catch (const UserError& e) {
    fmt::print(stderr, "espalier: {}\n", e.what());
    return tool::exit_user;
  } catch (const std::exception& e) {
    fmt::print(stderr, "espalier: {}\n", e.what());
    return tool::exit_internal;
  }
  return exit_code;
}
