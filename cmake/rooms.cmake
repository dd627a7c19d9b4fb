# Each room of src/ is one object library. All of them make libespalier.so, and a static archive for the tests,
# which also reach what the shared library hides. target/cuda/driver makes the plugin instead. A room may bring ROOM/room.cmake for flags of its own files.
set(ESPALIER_ROOMS base ir op rewrite grad kernel pass target target/reference target/cpu target/null target/cuda target/cuda/driver run comm
    tensor nn data format train optimise serve)

# Rooms whose sources share no private names, so that several make one: the headers are read once.
set(ESPALIER_UNITY_ROOMS ir op kernel pass target/reference tensor nn)

set(espalier_objects)
set(espalier_libs)
foreach(room IN LISTS ESPALIER_ROOMS)
  set(room_dir ${CMAKE_SOURCE_DIR}/src/${room})
  if(room STREQUAL target) # its folders are rooms themselves
    file(GLOB room_sources CONFIGURE_DEPENDS ${room_dir}/*.cpp)
  else()
    file(GLOB_RECURSE room_sources CONFIGURE_DEPENDS ${room_dir}/*.cpp)
  endif()
  if(room STREQUAL target/cuda) # the plugin is a room of its own, the simulator a library of the tests
    list(FILTER room_sources EXCLUDE REGEX "/target/cuda/(driver|sim)/")
  endif()
  if(NOT ESPALIER_ONEDNN)
    list(FILTER room_sources EXCLUDE REGEX "/target/cpu/onednn/.*\\.cpp$")
  endif()
  if(NOT room_sources)
    continue()
  endif()
  string(REPLACE "/" "_" room_id ${room})
  set(room_target espalier_${room_id})
  add_library(${room_target} OBJECT ${room_sources})
  target_link_libraries(${room_target} PRIVATE espalier_options ${ESPALIER_LIBS_${room_id}})
  target_compile_definitions(${room_target} PRIVATE ESPALIER_BUILDING=1)
  if(room_id STREQUAL format)
    target_compile_definitions(${room_target} PRIVATE ONNX_NAMESPACE=onnx ONNX_ML=1)
  endif()
  if(ESPALIER_PCH)
    if(NOT DEFINED espalier_pch)
      set(espalier_pch ${room_target})
      target_precompile_headers(${room_target} PRIVATE <algorithm> <array> <atomic> <cmath> <cstdint> <functional> <map>
        <memory> <mutex> <numeric> <optional> <span> <string> <string_view> <unordered_map> <vector> <fmt/format.h>)
    else()
      target_precompile_headers(${room_target} REUSE_FROM ${espalier_pch})
    endif()
  endif()
  if(ESPALIER_UNITY AND room IN_LIST ESPALIER_UNITY_ROOMS)
    set_target_properties(${room_target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 6)
  endif()
  include(${room_dir}/room.cmake OPTIONAL)
  if(room STREQUAL target/cuda/driver)
    continue()
  endif()
  list(APPEND espalier_objects $<TARGET_OBJECTS:${room_target}>)
  list(APPEND espalier_libs ${ESPALIER_LIBS_${room_id}})
endforeach()
list(REMOVE_DUPLICATES espalier_libs)

if(espalier_objects)
  add_library(espalier_archive STATIC ${espalier_objects})
  target_link_libraries(espalier_archive PUBLIC espalier_options ${espalier_libs})
  add_library(espalier_all INTERFACE) # whole: what registers itself at start is in, as in the shared library
  target_link_libraries(espalier_all INTERFACE $<LINK_LIBRARY:WHOLE_ARCHIVE,espalier_archive>)

  add_library(espalier SHARED ${espalier_objects})
  set_target_properties(espalier PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION})
  target_link_libraries(espalier PRIVATE espalier_options ${espalier_libs})
  target_link_options(espalier PRIVATE -Wl,--as-needed -Wl,--no-undefined)
  target_compile_features(espalier PUBLIC cxx_std_20)
  target_include_directories(espalier PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/src>)
  if(ESPALIER_SANITIZE OR ESPALIER_FUZZ) # the sanitizers' tests link the archive
    set_target_properties(espalier PROPERTIES EXCLUDE_FROM_ALL ON)
  endif()
endif()

# libespalier_cuda.so: opened at run time, beside libespalier.so. It links no library of NVIDIA's and needs no header of theirs.
if(TARGET espalier_target_cuda_driver)
  add_library(espalier_base_archive STATIC $<TARGET_OBJECTS:espalier_base>) # the plugin takes of it what it uses
  add_library(espalier_cuda MODULE $<TARGET_OBJECTS:espalier_target_cuda_driver>)
  target_link_libraries(espalier_cuda PRIVATE espalier_base_archive espalier_options)
  set(plugin_symbols ${CMAKE_CURRENT_LIST_DIR}/plugin_symbols.map)
  set_target_properties(espalier_cuda PROPERTIES LINK_DEPENDS ${plugin_symbols})
  target_link_options(espalier_cuda PRIVATE -Wl,--as-needed -Wl,--version-script=${plugin_symbols})
  if(NOT ESPALIER_SANITIZE AND NOT ESPALIER_FUZZ)
    target_link_options(espalier_cuda PRIVATE -Wl,--no-undefined)
  endif()
endif()

# Every build checks who includes whom.
find_program(BASH bash REQUIRED)
add_custom_target(check_includes ALL COMMAND ${BASH} ${CMAKE_SOURCE_DIR}/tools/check_includes.sh ${CMAKE_SOURCE_DIR}
                  COMMENT "Checking includes against src/rooms.txt" VERBATIM)
foreach(library espalier_archive espalier espalier_cuda)
  if(TARGET ${library})
    add_dependencies(${library} check_includes)
  endif()
endforeach()
