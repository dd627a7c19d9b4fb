# Programs: the command line (bin/espalier), examples/ and bench/ (bin/examples/, bin/bench/, one program a file).
if(NOT TARGET espalier_all)
  return()
endif()
add_compile_options(-Wno-missing-field-initializers) # from here on, options are named where they differ: {.threads = 2}

# apps/NAME/*.cpp: what a command of the tool does beyond the library, apart so that the tests reach it.
file(GLOB app_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/apps/*/*.cpp)
if(app_sources)
  add_library(espalier_apps STATIC ${app_sources})
  target_include_directories(espalier_apps PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(espalier_apps PUBLIC espalier_all)
  add_dependencies(espalier_apps check_includes)
endif()

file(GLOB_RECURSE tool_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/tool/*.cpp)
if(tool_sources)
  find_package(CLI11 REQUIRED)
  add_executable(espalier_tool ${tool_sources})
  set_target_properties(espalier_tool PROPERTIES OUTPUT_NAME espalier)
  target_link_libraries(espalier_tool PRIVATE espalier_all CLI11::CLI11 $<TARGET_NAME_IF_EXISTS:espalier_apps>)
  target_precompile_headers(espalier_tool PRIVATE <CLI/CLI.hpp> <nlohmann/json.hpp> <fmt/format.h>) # half of each file's time
  add_dependencies(espalier_tool espalier_cuda) # opened at run time
endif()

foreach(kind examples bench)
  file(GLOB program_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${kind}/*.cpp)
  add_custom_target(${kind})
  foreach(source IN LISTS program_sources)
    get_filename_component(name ${source} NAME_WE)
    add_executable(${kind}_${name} ${source})
    set_target_properties(${kind}_${name} PROPERTIES OUTPUT_NAME ${name}
                          RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin/${kind})
    if(kind STREQUAL examples) # they see what a user sees
      target_link_libraries(${kind}_${name} PRIVATE espalier)
    else()
      target_link_libraries(${kind}_${name} PRIVATE espalier_all)
    endif()
    add_dependencies(${kind} ${kind}_${name})
    if(kind STREQUAL bench OR ESPALIER_SANITIZE OR ESPALIER_FUZZ)
      set_target_properties(${kind}_${name} PROPERTIES EXCLUDE_FROM_ALL ON)
    endif()
  endforeach()
endforeach()

if(TARGET bench_gpu_compile) # compiles as the plugin does
  target_sources(bench_gpu_compile PRIVATE $<TARGET_OBJECTS:espalier_target_cuda_driver>)
endif()

if(TARGET espalier_op AND NOT ESPALIER_SANITIZE)
  add_executable(op_reference ${CMAKE_SOURCE_DIR}/tools/op_reference.cpp)
  target_link_libraries(op_reference PRIVATE espalier_all)
endif()

# What is run on a machine with a GPU. It shares the tests' comparisons and the tool's networks.
file(GLOB gpu_check_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tools/gpu_check/*.cpp)
if(TARGET espalier_tool AND gpu_check_sources)
  add_executable(gpu_check ${gpu_check_sources} ${CMAKE_SOURCE_DIR}/src/tool/networks.cpp ${CMAKE_SOURCE_DIR}/src/tool/cuda_report.cpp)
  set(gpu_logs ${CMAKE_BINARY_DIR}/generated/gpu_logs.h)
  set(gpu_log_sources ${CMAKE_SOURCE_DIR}/docs/gpu/kernel_bits.txt ${CMAKE_SOURCE_DIR}/docs/gpu/cpu_losses.txt)
  add_custom_command(OUTPUT ${gpu_logs} DEPENDS ${gpu_log_sources} ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake VERBATIM
    COMMAND ${CMAKE_COMMAND} -DOUT=${gpu_logs} "-DSOURCES=${gpu_log_sources}" -P ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake)
  target_sources(gpu_check PRIVATE ${gpu_logs})
  set_source_files_properties(${CMAKE_SOURCE_DIR}/tools/gpu_check/logs.cpp PROPERTIES OBJECT_DEPENDS ${gpu_logs})
  target_include_directories(gpu_check PRIVATE ${CMAKE_SOURCE_DIR}/tools ${CMAKE_SOURCE_DIR}/tests ${CMAKE_BINARY_DIR}/generated)
  target_link_libraries(gpu_check PRIVATE espalier_all CLI11::CLI11)
  add_dependencies(gpu_check espalier_cuda)
  if(ESPALIER_SANITIZE OR ESPALIER_FUZZ)
    set_target_properties(gpu_check PROPERTIES EXCLUDE_FROM_ALL ON)
  endif()
endif()
