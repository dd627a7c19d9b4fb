# Libraries of the system; LLVM is not among them, it is loaded when a kernel must be compiled. Each is linked to the rooms that use it (rooms.cmake); a room that is absent needs nothing.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PNG REQUIRED)

if(ESPALIER_OPENMP)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
endif()

# Objects see what the options chose as ESPALIER_OPENMP and ESPALIER_ONEDNN, 0 or 1.
add_library(espalier_options INTERFACE)
target_include_directories(espalier_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_definitions(espalier_options INTERFACE
  ESPALIER_OPENMP=$<BOOL:${ESPALIER_OPENMP}> ESPALIER_ONEDNN=$<BOOL:${ESPALIER_ONEDNN}>
  ESPALIER_VERSION="${PROJECT_VERSION}")
target_link_libraries(espalier_options INTERFACE fmt::fmt nlohmann_json::nlohmann_json Threads::Threads
  $<$<BOOL:${ESPALIER_OPENMP}>:OpenMP::OpenMP_CXX> ${CMAKE_DL_LIBS})

# Libraries that one room only may use.
set(ESPALIER_LIBS_data ZLIB::ZLIB PNG::PNG)
set(ESPALIER_LIBS_format ZLIB::ZLIB)
set(ESPALIER_LIBS_tool)

if(ESPALIER_ONEDNN AND EXISTS ${CMAKE_SOURCE_DIR}/src/target/cpu)
  find_library(DNNL_LIBRARY dnnl REQUIRED)
  list(APPEND ESPALIER_LIBS_target_cpu ${DNNL_LIBRARY})
endif()
if(EXISTS ${CMAKE_SOURCE_DIR}/src/format)
  find_package(Protobuf REQUIRED)
  find_library(ONNX_PROTO_LIBRARY onnx_proto REQUIRED)
  list(APPEND ESPALIER_LIBS_format ${ONNX_PROTO_LIBRARY} protobuf::libprotobuf)
endif()
