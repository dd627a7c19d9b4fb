#pragma once
// The folders in which NVIDIA's libraries are looked for.
#include <filesystem>
#include <string>
#include <vector>

namespace espalier::target::cuda::driver {

/// What the places depend on; `root` stands before every absolute folder but those of the variables.
struct SearchEnvironment {
  std::string cuda_path;                        ///< ESPALIER_CUDA_PATH
  std::string virtual_env, conda_prefix, home;  ///< VIRTUAL_ENV, CONDA_PREFIX, HOME
  std::string path = "";                        ///< PATH
  std::filesystem::path root = "/";
};

/// That of this process.
SearchEnvironment search_environment();

/// In order; "" is wherever the loader looks by itself.
struct SearchPlaces {
  std::vector<std::filesystem::path> driver;    ///< for libcuda and NVML, which come with the driver
  std::vector<std::filesystem::path> toolkits;  ///< for what is installed beside it
};

/// First the folders of ESPALIER_CUDA_PATH (colons between; each itself, its lib64, its lib, and every lib one folder down). The word
/// "off" among them ends the list: nothing else is searched. Then the loader's own places; the toolkits of /usr/local, the newest
/// first; and the nvidia packages of Python environments: the active one's, the user's, those whose python3 is on PATH, the
/// system's, those under /opt (each folder itself, and .venv in it).
SearchPlaces search_places(const SearchEnvironment& environment);

}  // namespace espalier::target::cuda::driver
