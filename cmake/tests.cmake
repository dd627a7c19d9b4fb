# tests/SUITE/*.cpp make one GoogleTest program test_SUITE, run in shards. A test's name says where it runs:
# *Threads* also under the thread sanitizer (and nothing else does), *Heavy* in no sanitizer, and but for those of devices alone on the machine.
# tests/fuzz/NAME_fuzz.cpp is a fuzz target: with libFuzzer the program fuzz_NAME, else the test fuzz.NAME that replays
# tests/fuzz/corpus/NAME. Code blocks of the docs, the include check and the installed package are tests too.
find_package(GTest REQUIRED)
find_program(BASH bash REQUIRED)
if(NOT TARGET espalier_all)
  return()
endif()
set(ESPALIER_SUITES unit ops passes golden differential errors device e2e)
set(ESPALIER_SANITIZED unit errors passes golden device) # the suites that the address sanitizer's run takes
set(tests ${CMAKE_SOURCE_DIR}/tests)
set(results ${CMAKE_BINARY_DIR}/results)
set(test_environment GTEST_COLOR=no ESPALIER_CACHE_DIR=${CMAKE_BINARY_DIR}/kernels OMP_WAIT_POLICY=passive # several tests share the processors
    "ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1:malloc_context_size=10"
    "LSAN_OPTIONS=suppressions='${CMAKE_SOURCE_DIR}/cmake/leaks.supp':print_suppressions=0"
    "TSAN_OPTIONS=suppressions='${CMAKE_SOURCE_DIR}/cmake/races.supp':halt_on_error=1"
    UBSAN_OPTIONS=print_stacktrace=1)
set(address OFF)
set(launcher)
set(thread OFF)
if(ESPALIER_SANITIZE MATCHES address)
  set(address ON)
  set(launcher ${BASH} ${CMAKE_SOURCE_DIR}/tools/second_try.sh)
elseif(ESPALIER_SANITIZE MATCHES thread)
  set(thread ON)
endif()
add_custom_target(sanitized) # what the address sanitizer's run needs
add_custom_target(threaded)  # what the thread sanitizer's run needs

include(cuda_sim)

add_compile_options(-Wno-dangling-else) # EXPECT_EQ under an if

# One ctest test of a GoogleTest program, which counts its own cases in results/NAME.xml.
function(espalier_gtest name target)
  cmake_parse_arguments(arg "" "FILTER" "LABELS;ENVIRONMENT;ARGS" ${ARGN})
  add_test(NAME ${name} COMMAND ${launcher} $<TARGET_FILE:${target}> --gtest_filter=${arg_FILTER} --gtest_output=xml:${results}/${name}.xml
           ${arg_ARGS} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT 1500
                       ENVIRONMENT "${test_environment};${arg_ENVIRONMENT}")
endfunction()

include(${tests}/device/fakes.cmake)

foreach(suite IN LISTS ESPALIER_SUITES)
  file(GLOB sources CONFIGURE_DEPENDS ${tests}/${suite}/*.cpp)
  if(thread) # only the files with threaded tests
    foreach(source IN LISTS sources)
      file(STRINGS ${source} threaded_tests REGEX "^ *TEST.*Threads" LIMIT_COUNT 1)
      if(NOT threaded_tests)
        list(REMOVE_ITEM sources ${source})
      endif()
    endforeach()
  endif()
  if(NOT sources)
    continue()
  endif()
  set(target test_${suite})
  add_executable(${target} ${sources})
  target_include_directories(${target} PRIVATE ${tests})
  target_compile_definitions(${target} PRIVATE ESPALIER_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                             ESPALIER_TOOL="${CMAKE_BINARY_DIR}/bin/espalier")
  target_link_libraries(${target} PRIVATE espalier_all $<TARGET_NAME_IF_EXISTS:espalier_apps> GTest::gmock GTest::gtest_main)
  if(suite STREQUAL device)
    target_link_libraries(${target} PRIVATE espalier_cuda_sim)
  endif()
  if(NOT DEFINED pch_owner)
    set(pch_owner ${target})
    target_precompile_headers(${target} PRIVATE <gtest/gtest.h> <fmt/format.h> <vector> <string> <random> <functional>
                              <memory> <span> <map>)
  else()
    target_precompile_headers(${target} REUSE_FROM ${pch_owner})
  endif()
  if(suite MATCHES "unit|errors|device|e2e") # opened at run time (tests/support/sim_plugin.h)
    add_dependencies(${target} espalier_cuda_on_sim)
  endif()
  if(TARGET espalier_tool AND suite MATCHES "errors|device|e2e" AND NOT thread)
    add_dependencies(${target} espalier_tool)
  endif()
  if(suite STREQUAL device) # what the plugin meets without a GPU
    target_compile_definitions(${target} PRIVATE ESPALIER_FAKES="${fakes}" ESPALIER_PLUGIN="$<TARGET_FILE:espalier_cuda>")
    add_dependencies(${target} fakes espalier_cuda)
    if(NOT ESPALIER_SANITIZE)
      add_dependencies(${target} gpu_check)
    endif()
  endif()
  if(suite STREQUAL e2e AND TARGET examples)
    add_dependencies(${target} examples)
  endif()

  if(thread)
    add_dependencies(threaded ${target})
    espalier_gtest(${suite}.threads ${target} FILTER "*Threads*" LABELS threads)
    continue()
  endif()
  set(labels ${suite})
  if(suite IN_LIST ESPALIER_SANITIZED)
    add_dependencies(sanitized ${target})
    list(APPEND labels sanitized)
  endif()
  foreach(shard RANGE 3)
    espalier_gtest(${suite}.${shard} ${target} FILTER "-*Heavy*" LABELS ${labels}
                   ENVIRONMENT GTEST_TOTAL_SHARDS=4 GTEST_SHARD_INDEX=${shard})
  endforeach()
  if(NOT ESPALIER_SANITIZE AND suite STREQUAL device) # minutes of NVIDIA's compilers and of the simulator, on one thread each
    foreach(shard RANGE 1)
      espalier_gtest(device.heavy.${shard} ${target} FILTER "*Heavy*" LABELS device heavy
                     ENVIRONMENT GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=${shard})
    endforeach()
  elseif(NOT ESPALIER_SANITIZE)
    espalier_gtest(${suite}.heavy ${target} FILTER "*Heavy*" LABELS ${suite} heavy)
    set_tests_properties(${suite}.heavy PROPERTIES RUN_SERIAL ON)
  endif()
endforeach()

file(GLOB fuzz_targets CONFIGURE_DEPENDS ${tests}/fuzz/*_fuzz.cpp)
foreach(source IN LISTS fuzz_targets)
  get_filename_component(name ${source} NAME_WE)
  string(REGEX REPLACE "_fuzz$" "" name ${name})
  set(of_plugin)
  if(name STREQUAL kernel_images) # what the plugin reads
    set(of_plugin $<TARGET_OBJECTS:espalier_target_cuda_driver>)
  endif()
  if(ESPALIER_FUZZ)
    add_executable(fuzz_${name} ${source} ${of_plugin})
    target_link_libraries(fuzz_${name} PRIVATE espalier_all)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  elseif(NOT thread)
    add_executable(replay_${name} ${source} ${tests}/fuzz/replay/main.cpp ${of_plugin})
    target_compile_definitions(replay_${name} PRIVATE ESPALIER_FUZZ_NAME="${name}")
    target_link_libraries(replay_${name} PRIVATE espalier_all GTest::gtest)
    add_dependencies(sanitized replay_${name})
    espalier_gtest(fuzz.${name} replay_${name} FILTER "*" LABELS fuzz sanitized ARGS ${tests}/fuzz/corpus/${name})
  endif()
endforeach()

if(ESPALIER_SANITIZE OR ESPALIER_FUZZ)
  return()
endif()

add_test(NAME includes COMMAND ${BASH} ${CMAKE_SOURCE_DIR}/tools/check_includes.sh ${CMAKE_SOURCE_DIR})
add_test(NAME includes.refuses COMMAND ${BASH} ${tests}/static/check_includes_test.sh ${CMAKE_SOURCE_DIR})
add_test(NAME format COMMAND ${BASH} ${tests}/static/format_test.sh ${CMAKE_SOURCE_DIR})
set_tests_properties(format PROPERTIES LABELS static SKIP_RETURN_CODE 77)
add_test(NAME tidy COMMAND ${CMAKE_SOURCE_DIR}/tools/tidy.sh ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR} check)
set_tests_properties(tidy PROPERTIES LABELS static SKIP_RETURN_CODE 77)
add_test(NAME bundle COMMAND ${BASH} ${tests}/install/bundle_test.sh ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
add_test(NAME install COMMAND ${BASH} ${tests}/install/test.sh ${CMAKE_BINARY_DIR} ${CMAKE_CXX_COMPILER})
set_tests_properties(includes includes.refuses install bundle PROPERTIES LABELS static)
include(docs)
