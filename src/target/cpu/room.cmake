# A kernel in the object cache is good for the very sources that emitted it.
file(GLOB emitter_sources CONFIGURE_DEPENDS ${room_dir}/emit/*.h ${room_dir}/emit/*.cpp ${room_dir}/jit/compile_ir.*
     ${CMAKE_SOURCE_DIR}/src/kernel/loop_nest.* ${CMAKE_SOURCE_DIR}/src/kernel/math_tables.h
     ${CMAKE_SOURCE_DIR}/src/kernel/nest_transform.*)
set(emitter_hash ${CMAKE_BINARY_DIR}/generated/emitter_hash.h)
add_custom_command(OUTPUT ${emitter_hash} DEPENDS ${emitter_sources} ${CMAKE_SOURCE_DIR}/cmake/hash_sources.cmake VERBATIM
  COMMAND ${CMAKE_COMMAND} -DOUT=${emitter_hash} -DNAME=emitter_hash "-DSOURCES=${emitter_sources}"
          -P ${CMAKE_SOURCE_DIR}/cmake/hash_sources.cmake)
if(NOT EXISTS ${emitter_hash}) # for tools that read the sources of a build that has only been configured
  execute_process(COMMAND ${CMAKE_COMMAND} -DOUT=${emitter_hash} -DNAME=emitter_hash "-DSOURCES=${emitter_sources}"
                          -P ${CMAKE_SOURCE_DIR}/cmake/hash_sources.cmake)
endif()
target_sources(${room_target} PRIVATE ${emitter_hash})
set_source_files_properties(${room_dir}/compile.cpp PROPERTIES OBJECT_DEPENDS ${emitter_hash})
target_include_directories(${room_target} PRIVATE ${CMAKE_BINARY_DIR}/generated)
