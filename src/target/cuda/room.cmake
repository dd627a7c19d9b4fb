# A plugin serves the very sources that its host was built from.
include(GNUInstallDirs)
file(GLOB_RECURSE plugin_sources CONFIGURE_DEPENDS ${room_dir}/driver/*.h ${room_dir}/driver/*.cpp
     ${CMAKE_SOURCE_DIR}/src/base/*.h ${CMAKE_SOURCE_DIR}/src/base/*.cpp)
file(GLOB plugin_interfaces CONFIGURE_DEPENDS ${room_dir}/*.h ${CMAKE_SOURCE_DIR}/src/target/*.h)
list(APPEND plugin_sources ${plugin_interfaces})
set(plugin_hash ${CMAKE_BINARY_DIR}/generated/plugin_hash.h)
set(write_plugin_hash ${CMAKE_COMMAND} -DOUT=${plugin_hash} -DNAME=plugin_hash "-DSOURCES=${plugin_sources}"
    "-DMORE=${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}" -P ${CMAKE_SOURCE_DIR}/cmake/hash_sources.cmake)
add_custom_command(OUTPUT ${plugin_hash} DEPENDS ${plugin_sources} ${CMAKE_SOURCE_DIR}/cmake/hash_sources.cmake VERBATIM
                   COMMAND ${write_plugin_hash})
if(NOT EXISTS ${plugin_hash}) # for tools that read the sources of a build that has only been configured
  execute_process(COMMAND ${write_plugin_hash})
endif()
add_custom_target(plugin_hash DEPENDS ${plugin_hash}) # one writer for both sides
add_dependencies(${room_target} plugin_hash)
set_source_files_properties(${room_dir}/plugin.cpp PROPERTIES OBJECT_DEPENDS ${plugin_hash}
                            COMPILE_DEFINITIONS ESPALIER_LIBDIR="${CMAKE_INSTALL_LIBDIR}")

# So do the recorded tables of products.
file(GLOB product_tables CONFIGURE_DEPENDS ${room_dir}/match/products_*.txt)
set(product_text ${CMAKE_BINARY_DIR}/generated/product_tables.h)
set(write_product_text ${CMAKE_COMMAND} -DOUT=${product_text} "-DSOURCES=${product_tables}" -P ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake)
add_custom_command(OUTPUT ${product_text} DEPENDS ${product_tables} ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake VERBATIM COMMAND ${write_product_text})
if(NOT EXISTS ${product_text})
  execute_process(COMMAND ${write_product_text})
endif()
target_sources(${room_target} PRIVATE ${product_text})
set_source_files_properties(${room_dir}/match/product_table.cpp PROPERTIES OBJECT_DEPENDS ${product_text})

# Device code travels in the library as text.
file(GLOB device_headers CONFIGURE_DEPENDS ${room_dir}/port/*.h)
set(device_text ${CMAKE_BINARY_DIR}/generated/device_text.h)
add_custom_command(OUTPUT ${device_text} DEPENDS ${device_headers} ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake VERBATIM
  COMMAND ${CMAKE_COMMAND} -DOUT=${device_text} "-DSOURCES=${device_headers}" -P ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake)
if(NOT EXISTS ${device_text}) # for tools that read the sources of a build that has only been configured
  execute_process(COMMAND ${CMAKE_COMMAND} -DOUT=${device_text} "-DSOURCES=${device_headers}"
                          -P ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake)
endif()
target_sources(${room_target} PRIVATE ${device_text})
set_source_files_properties(${room_dir}/port.cpp PROPERTIES OBJECT_DEPENDS ${device_text})
target_include_directories(${room_target} PRIVATE ${CMAKE_BINARY_DIR}/generated)
