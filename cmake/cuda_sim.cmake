# The simulator of the CUDA target: kernels compiled by this build's compiler with its sanitizers and run on fibers, and the plugin's parts over
# a driver on the host. For tests.
set(sim_dir ${CMAKE_SOURCE_DIR}/src/target/cuda/sim)
file(GLOB sim_sources CONFIGURE_DEPENDS ${sim_dir}/*.cpp)
set(sim_text ${CMAKE_BINARY_DIR}/generated/slim_text.h)
add_custom_command(OUTPUT ${sim_text} DEPENDS ${sim_dir}/slim.h ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake VERBATIM
  COMMAND ${CMAKE_COMMAND} -DOUT=${sim_text} -DSOURCES=${sim_dir}/slim.h -P ${CMAKE_SOURCE_DIR}/cmake/embed_text.cmake)
add_library(espalier_cuda_sim STATIC ${sim_sources} ${sim_text} $<TARGET_OBJECTS:espalier_target_cuda_driver>)
set_source_files_properties(${sim_dir}/kernel_library.cpp PROPERTIES OBJECT_DEPENDS ${sim_text})
target_include_directories(espalier_cuda_sim PRIVATE ${CMAKE_BINARY_DIR}/generated)
target_link_libraries(espalier_cuda_sim PUBLIC espalier_options)
set(sim_sanitize "")
if(ESPALIER_SANITIZE)
  set(sim_sanitize "-fsanitize=${ESPALIER_SANITIZE} -fno-sanitize=vptr,null,object-size -fno-sanitize-recover=all -fno-omit-frame-pointer")
endif()
target_compile_definitions(espalier_cuda_sim PRIVATE ESPALIER_SIM_COMPILER="${CMAKE_CXX_COMPILER}"
  ESPALIER_SIM_SANITIZE="${sim_sanitize}" ESPALIER_SIM_CACHE="${CMAKE_BINARY_DIR}/sim_kernels")
# The scheduler and the streams are the machine, not the program: the thread sanitizer is told what they do.
set(sim_machine ${sim_dir}/block.cpp ${sim_dir}/stream_work.cpp)
if(ESPALIER_SANITIZE MATCHES thread)
  set_source_files_properties(${sim_machine} PROPERTIES COMPILE_OPTIONS -fno-sanitize=thread
                              COMPILE_DEFINITIONS ESPALIER_SIM_TSAN=1)
else()
  set_source_files_properties(${sim_machine} PROPERTIES COMPILE_DEFINITIONS ESPALIER_SIM_TSAN=0)
endif()
