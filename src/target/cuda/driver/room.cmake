# The vendor's headers are held against ours where they are installed (tables/vendor_check.cpp); nothing else includes them.
find_path(CUDA_HEADERS cuda.h PATHS /usr/local/cuda/include)
if(CUDA_HEADERS AND NOT CUDA_HEADERS IN_LIST CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES)
  set_source_files_properties(${room_dir}/tables/vendor_check.cpp PROPERTIES COMPILE_OPTIONS "-isystem;${CUDA_HEADERS}")
endif()
set_source_files_properties(${room_dir}/plugin_entry.cpp ${room_dir}/dnn_engine.cpp PROPERTIES OBJECT_DEPENDS ${CMAKE_BINARY_DIR}/generated/plugin_hash.h)
add_dependencies(${room_target} plugin_hash)
target_include_directories(${room_target} PRIVATE ${CMAKE_BINARY_DIR}/generated)
