# How every object is compiled: standard, optimisation, warnings, sanitizers, ccache.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2") # checks stay on; no debug information: smaller and faster to build
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g")

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE})
endif()

# Only objects of this project; flags of every directory below.
add_compile_options(-Wall -Wextra -Wnon-virtual-dtor -Woverloaded-virtual -Werror=missing-field-initializers
                    -Werror=return-type -Werror=switch -fno-math-errno -ffp-contract=off)
if(NOT ESPALIER_OPENMP)
  add_compile_options(-Wno-unknown-pragmas)
endif()
if(ESPALIER_WERROR)
  # The optimiser's guesses depend on inlining: they warn, they do not stop a build.
  add_compile_options(-Werror -Wno-error=deprecated-declarations)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    add_compile_options(-Wno-error=maybe-uninitialized -Wno-error=restrict -Wno-error=stringop-overflow -Wno-error=stringop-overread
                        -Wno-error=array-bounds -Wno-error=free-nonheap-object -Wno-error=dangling-pointer)
  endif()
endif()
if(ESPALIER_SANITIZE)
  # Null and wrong-object accesses the address sanitizer sees as well; their checks triple the time of a build.
  add_compile_options(-fsanitize=${ESPALIER_SANITIZE} -fno-sanitize=vptr,null,object-size -fno-sanitize-recover=all
                      -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${ESPALIER_SANITIZE})
endif()
if(ESPALIER_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
