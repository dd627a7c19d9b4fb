// Listing GPUs, on a driver that stands for the real one: several GPUs, calls that fail, slices; and `espalier devices` over it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/environment.h"
#include "support/json_schema.h"
#include "support/tool.h"
#include "target/cuda/driver/report.h"

namespace espalier::target::cuda::driver {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::filesystem::path fakes = ESPALIER_FAKES;

/// What is reported when the fake libraries in these folders are asked with these settings.
CudaReport report_of(const std::string& settings, const std::vector<std::string>& folders = {"driver"}) {
  const test::Variable fake("ESPALIER_FAKE_GPU", settings);
  SearchPlaces places;
  for (const std::string& folder : folders) places.driver.push_back(fakes / folder);
  places.toolkits = places.driver;
  Libraries libraries(places);
  return make_report(libraries, Ask::everything);
}

TEST(Devices, EveryFieldIsFilled) {
  const CudaReport r = report_of("gpus=1");
  EXPECT_EQ(r.problem, "");
  EXPECT_EQ(r.driver_release, "580.65.06");
  ASSERT_EQ(r.devices.size(), 1u);
  const DeviceInfo& d = r.devices[0];
  EXPECT_THAT(d.notes, IsEmpty());
  EXPECT_EQ(d.name, "Fake H200 number 0");
  EXPECT_EQ(d.uuid, "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
  EXPECT_EQ(d.bus_id, "0000:10:00.0");
  EXPECT_EQ(d.capability, 90);
  EXPECT_EQ(d.multiprocessors, 132);
  EXPECT_EQ(d.clock_mhz, 1980);
  EXPECT_EQ(d.memory_bytes, 150'000'000'000);
  EXPECT_EQ(d.memory_free_bytes, 149'000'000'000);
  EXPECT_NEAR(d.peak_gbps().value_or(0), 4916.7, 0.1);
  EXPECT_EQ(d.l2_bytes, 62914560);
  EXPECT_EQ(d.shared_per_block, 48 << 10);
  EXPECT_EQ(d.shared_per_block_opt_in, 227 << 10);
  EXPECT_EQ(d.shared_per_multiprocessor, 228 << 10);
  EXPECT_EQ(d.ecc, true);
  EXPECT_EQ(d.mig, false);
  EXPECT_EQ(d.integrated, false);
  EXPECT_EQ(d.compute_mode, "default");
  EXPECT_EQ(d.peers, std::vector<int>{});
  EXPECT_EQ(d.utilisation_percent, 37);
  EXPECT_EQ(d.memory_utilisation_percent, 12);
  EXPECT_EQ(d.power_watts, 123.456);
  EXPECT_EQ(d.power_limit_watts, 700);
  EXPECT_EQ(d.temperature_celsius, 40);
  EXPECT_EQ(d.clock_now_mhz, 345);
}

TEST(Devices, SeveralAreMatchedWithTheirSensors) {
  const CudaReport r = report_of("gpus=3;ecc=0;mode=3");
  ASSERT_EQ(r.devices.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    const DeviceInfo& d = r.devices[static_cast<size_t>(i)];
    EXPECT_EQ(d.index, i);
    EXPECT_EQ(d.temperature_celsius, 40 + i);
    EXPECT_EQ(d.ecc, false);
    EXPECT_EQ(d.compute_mode, "exclusive process");
  }
  EXPECT_EQ(r.devices[0].peers, std::vector<int>{1});
  EXPECT_EQ(r.devices[1].peers, std::vector<int>{0});
  EXPECT_EQ(r.devices[2].peers, std::vector<int>{});
}

TEST(Devices, NoneIsNoError) {
  const CudaReport r = report_of("gpus=0");
  EXPECT_THAT(r.devices, IsEmpty());
  EXPECT_THAT(r.problem, HasSubstr("the driver shows no GPU"));
  EXPECT_TRUE(r.libraries[0].found);
}

TEST(Devices, ADriverThatDoesNotStart) {
  const CudaReport r = report_of("fails=cuInit:999");
  EXPECT_THAT(r.devices, IsEmpty());
  EXPECT_EQ(r.problem, "cuInit: CUDA_ERROR_UNKNOWN (999): unknown error");
  EXPECT_EQ(report_of("fails=cuDeviceGetCount:4242").problem,
            "cuDeviceGetCount: an unknown error (4242): the driver does not say more");
}

TEST(Devices, OldDriver) {
  const CudaReport r = report_of("driver=11040");
  EXPECT_THAT(r.devices, IsEmpty());
  EXPECT_THAT(r.problem, HasSubstr("driver too old, found 11.4, needs 12.0"));
}

TEST(Devices, ASliceOfAMigDevice) {
  const CudaReport r = report_of("gpus=2;mig=1");
  ASSERT_EQ(r.devices.size(), 2u);
  EXPECT_EQ(r.devices[0].mig, true);
  EXPECT_EQ(r.devices[0].uuid, "MIG-00010203-0405-0607-0809-0a0b0c0d0e0f");
  EXPECT_EQ(r.devices[0].utilisation_percent, std::nullopt);
  EXPECT_THAT(r.devices[0].notes, ElementsAre("nvmlDeviceGetUtilizationRates: Not Supported (3)"));
  EXPECT_EQ(r.devices[1].mig, false);
  EXPECT_THAT(r.devices[1].notes, IsEmpty());
}

TEST(Devices, WithoutSensors) {
  const CudaReport without = report_of("fails=nvmlInit:18");
  ASSERT_EQ(without.devices.size(), 1u);
  EXPECT_EQ(without.devices[0].multiprocessors, 132);
  EXPECT_EQ(without.devices[0].memory_free_bytes, std::nullopt);
  EXPECT_EQ(without.driver_release, "");
  const CudaReport bare = report_of("", {"bare_nvml", "driver"});
  ASSERT_EQ(bare.devices.size(), 1u);
  EXPECT_EQ(bare.libraries[1].version, "");
  EXPECT_EQ(bare.devices[0].power_watts, std::nullopt);
  EXPECT_THAT(bare.devices[0].notes, Contains("nvmlDeviceGetPowerUsage: this driver lacks it"));
  const CudaReport foreign = report_of("fails=nvmlDeviceGetHandleByUUID:15");
  EXPECT_THAT(foreign.devices[0].notes, ElementsAre("nvmlDeviceGetHandleByUUID: GPU is lost (15)"));
}

TEST(Devices, WithoutOptionalEntryPoints) {
  const CudaReport r = report_of("gpus=2;lacks=cuDeviceGetUuid,cuDeviceGetPCIBusId,cuDeviceCanAccessPeer");
  ASSERT_EQ(r.devices.size(), 2u);
  EXPECT_EQ(r.devices[0].uuid, std::nullopt);
  EXPECT_EQ(r.devices[0].bus_id, std::nullopt);
  EXPECT_EQ(r.devices[0].peers, std::nullopt);
  EXPECT_THAT(r.devices[0].notes, ElementsAre("cuDeviceGetUuid: this driver lacks it",
                                              "cuDeviceGetPCIBusId: this driver lacks it",
                                              "cuDeviceCanAccessPeer: this driver lacks it"));
  EXPECT_EQ(r.devices[0].multiprocessors, 132);
}

TEST(Devices, EachCallMayFailAlone) {
  const auto unknown_fields = [](const DeviceInfo& d) {
    return !d.name + !d.uuid + !d.bus_id + !d.capability + !d.multiprocessors + !d.clock_mhz +
           !d.memory_bytes + !d.memory_clock_mhz + !d.memory_bus_bits + !d.l2_bytes + !d.shared_per_block +
           !d.shared_per_block_opt_in + !d.shared_per_multiprocessor + !d.ecc + !d.mig + !d.integrated +
           !d.compute_mode + !d.peers + !d.memory_free_bytes + !d.utilisation_percent +
           !d.memory_utilisation_percent + !d.power_watts + !d.power_limit_watts + !d.temperature_celsius +
           !d.clock_now_mhz + !d.memory_clock_now_mhz + !d.threads_per_multiprocessor +
           !d.registers_per_multiprocessor;
  };
  const std::vector<std::pair<std::string, int>> unknown_after{{"cuDeviceGetName", 1},
                                                               {"cuDeviceGetPCIBusId", 1},
                                                               {"cuDeviceTotalMem", 1},
                                                               {"cuDeviceCanAccessPeer", 1},
                                                               {"attribute13", 1},
                                                               {"attribute75", 1},
                                                               {"attribute32", 1},
                                                               {"attribute97", 1},
                                                               {"nvmlDeviceGetMemoryInfo", 1},
                                                               {"nvmlDeviceGetUtilizationRates", 2},
                                                               {"nvmlDeviceGetPowerUsage", 1},
                                                               {"nvmlDeviceGetEnforcedPowerLimit", 1},
                                                               {"nvmlDeviceGetTemperature", 1},
                                                               {"nvmlDeviceGetClockInfo", 2},
                                                               {"nvmlDeviceGetMigMode", 1},
                                                               {"cuDeviceGetUuid", 9 + 1},
                                                               {"nvmlDeviceGetHandleByUUID", 9}};
  for (const auto& [call, unknown] : unknown_after) {
    const CudaReport r = report_of("gpus=2;fails=" + call + ":999");
    ASSERT_EQ(r.devices.size(), 2u) << call;
    EXPECT_EQ(unknown_fields(r.devices[1]), unknown) << call;
    EXPECT_FALSE(r.devices[1].notes.empty()) << call;
  }
  const CudaReport r = report_of("gpus=2;fails=cuDeviceGet:999");
  ASSERT_EQ(r.devices.size(), 2u);
  EXPECT_EQ(unknown_fields(r.devices[0]), 28);
  EXPECT_THAT(r.devices[0].notes, ElementsAre("cuDeviceGet: CUDA_ERROR_UNKNOWN (999): unknown error"));
}

TEST(Devices, AskedForAloneTheyLoadNoOtherLibrary) {
  const test::Variable fake("ESPALIER_FAKE_GPU", "gpus=2");
  Libraries libraries({.driver = {fakes / "driver"}, .toolkits = {fakes / "cuda13"}});
  const CudaReport r = make_report(libraries, Ask::devices);
  EXPECT_EQ(r.devices.size(), 2u);
  EXPECT_THAT(r.libraries, IsEmpty());
}

// The command.

/// `espalier devices` with these settings of the fake libraries in these folders, and nothing else to be found.
test::ToolCall devices(const std::string& arguments, const std::string& settings,
                       const std::string& folders) {
  return test::call_tool("devices " + arguments, "export ESPALIER_FAKE_GPU='" + settings +
                                                     "' ESPALIER_CUDA_PATH='" + folders + ":off';");
}

const nlohmann::json& schema() {
  static const nlohmann::json value =
      nlohmann::json::parse(read_file(ESPALIER_SOURCE_DIR "/docs/devices.schema.json"));
  return value;
}

TEST(DevicesCommand, JsonFollowsItsSchema) {
  const std::string all = (fakes / "driver").string() + ":" + (fakes / "cuda12").string();
  for (const auto& [settings, folders] :
       std::vector<std::pair<std::string, std::string>>{{"gpus=3", all},
                                                        {"gpus=1;mig=1", all},
                                                        {"gpus=0", all},
                                                        {"driver=11080", all},
                                                        {"gpus=2;fails=cuDeviceGet:999", all},
                                                        {"fails=cuInit:999", all},
                                                        {"", "/no/such/folder"},
                                                        {"", ""}}) {
    const test::ToolCall c = devices("--json", settings, folders);
    EXPECT_EQ(c.code, 0) << c.err;
    EXPECT_EQ(test::schema_error(c.json(), schema()), "") << settings;
    EXPECT_EQ(c.json()["gpus"].empty(), !c.json()["cuda"]["problem"].get<std::string>().empty()) << c.out;
  }
  const nlohmann::json measured = devices("--measure --json", "", "").json();
  EXPECT_EQ(test::schema_error(measured, schema()), "");
  EXPECT_TRUE(measured.contains("f32_gflops"));
  nlohmann::json wrong = measured;
  wrong["cuda"]["libraries"][0]["found"] = "no";
  EXPECT_EQ(test::schema_error(wrong, schema()), "$.cuda.libraries[0].found is \"no\", not \"boolean\"");
  wrong = measured;
  wrong["new"] = 1;
  EXPECT_EQ(test::schema_error(wrong, schema()), "$ has new");
}

TEST(DevicesCommand, JsonHoldsTheFigures) {
  const nlohmann::json j = devices("--json", "gpus=2", (fakes / "driver").string()).json();
  ASSERT_EQ(j["gpus"].size(), 2u);
  EXPECT_EQ(j["gpus"][1]["device"], "cuda:1");
  EXPECT_EQ(j["gpus"][1]["capability"], 90);
  EXPECT_EQ(j["gpus"][1]["power_watts"], 123.456);
  EXPECT_EQ(j["gpus"][0]["peers"], nlohmann::json::array({1}));
  EXPECT_EQ(j["cuda"]["driver_release"], "580.65.06");
  EXPECT_EQ(j["cuda"]["plugin"]["path"], ESPALIER_PLUGIN);
}

TEST(DevicesCommand, TextForPeople) {
  const test::ToolCall c = devices("", "gpus=2;fails=nvmlDeviceGetTemperature:15,cuDeviceGetName:999",
                                   (fakes / "driver").string());
  EXPECT_EQ(c.code, 0) << c.err;
  for (const char* line :
       {"cpu      ", "cuda:0   unavailable, capability 9.0, 132 multiprocessors at 1980 MHz",
        "memory 139.7 GiB, free 138.8 GiB, peak 4917 GB/s (6144 bits at 3201 MHz), L2 60.0 MiB",
        "shared memory of a block 48.0 KiB, by opt-in 227.0 KiB, of a multiprocessor 228.0 KiB",
        "ECC on, MIG off, P2P with 1, compute mode default",
        "now: busy 37 %, memory busy 12 %, power 123.5 W of 700.0 W, temperature unavailable, clock 345 MHz",
        "unavailable: nvmlDeviceGetTemperature: GPU is lost (15)",
        "unavailable: cuDeviceGetName: CUDA_ERROR_UNKNOWN (999): unknown error", "driver   release 580.65.06",
        "library  driver     13.0 at ",
        "library  nccl       missing (for several GPUs at once): libnccl.so.2"})
    EXPECT_THAT(c.out, HasSubstr(line));
}

TEST(DevicesCommand, WhatWasPassedOverIsNamed) {
  const test::ToolCall c =
      devices("", "driver=12020", fmt::format("{0}/driver:{0}/cuda13:{0}/cuda12", fakes.string()));
  EXPECT_EQ(c.code, 0) << c.err;
  EXPECT_THAT(c.out, HasSubstr(fmt::format(
                         "library  cublaslt   12.3.2 at {0}/cuda12/libcublasLt.so.12\n         it needs "
                         "a driver for CUDA 13, found 12.2: {0}/cuda13/libcublasLt.so.13\n",
                         fakes.string())));
}

TEST(DevicesCommand, NothingThere) {
  const test::ToolCall c = devices("", "", "/no/such/folder");
  EXPECT_EQ(c.code, 0) << c.err;
  EXPECT_THAT(c.out, HasSubstr("gpu      none: no driver: libcuda.so.1 is not there\n"));
  EXPECT_THAT(c.out, HasSubstr("not there: /no/such/folder/libcudnn.so.9\n"));
}

TEST(DevicesCommand, PluginOfAnotherVersion) {
  const test::TemporaryFolder folder;  // a tool by itself, without the plugin beside it
  std::filesystem::copy_file(ESPALIER_TOOL, folder / "espalier");
  const auto call = [&](const std::string& path) {
    return test::run_command("ESPALIER_PLUGIN_PATH='" + path + "' '" + (folder / "espalier").string() +
                             "' devices");
  };
  const test::Outcome missing = call("/no/such/folder");
  EXPECT_EQ(missing.code, 0);
  EXPECT_THAT(missing.output,
              HasSubstr("gpu      none: the CUDA plugin is not used: libespalier_cuda.so is not there\n"));
  EXPECT_THAT(missing.output, HasSubstr("not there: /no/such/folder/libespalier_cuda.so, "));
  const test::Outcome wrong = call((fakes / "plugin_of_another_version").string());
  EXPECT_EQ(wrong.code, 0);
  EXPECT_THAT(wrong.output, HasSubstr("a plugin of another version: found 0.0.9, needs " ESPALIER_VERSION));
  const test::Outcome right = call(std::filesystem::path(ESPALIER_PLUGIN).parent_path().string());
  EXPECT_EQ(right.code, 0);
  EXPECT_THAT(right.output, HasSubstr("plugin   " ESPALIER_PLUGIN "\n"));
}

}  // namespace
}  // namespace espalier::target::cuda::driver
