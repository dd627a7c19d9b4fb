# Code blocks of the documentation marked ```cpp run are whole programs: each is built against the shared library and run
# as a test. A ```text output block that follows holds what it prints.
file(GLOB_RECURSE pages CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/docs/*.md)
list(APPEND pages ${CMAKE_SOURCE_DIR}/README.md)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${pages} ${CMAKE_SOURCE_DIR}/tools/extract_programs.sh)
execute_process(COMMAND ${BASH} ${CMAKE_SOURCE_DIR}/tools/extract_programs.sh ${CMAKE_BINARY_DIR}/docs ${pages}
                OUTPUT_VARIABLE programs OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "\n" ";" programs "${programs}")
foreach(program IN LISTS programs)
  add_executable(docs_${program} ${CMAKE_BINARY_DIR}/docs/${program}.cpp)
  set_target_properties(docs_${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin/docs)
  target_link_libraries(docs_${program} PRIVATE espalier)
  add_test(NAME docs.${program} COMMAND ${BASH} ${CMAKE_SOURCE_DIR}/tests/static/run_and_compare.sh
           $<TARGET_FILE:docs_${program}> ${CMAKE_BINARY_DIR}/docs/${program}.expected)
  set_tests_properties(docs.${program} PROPERTIES LABELS "docs;static" ENVIRONMENT "${test_environment}")
endforeach()

# docs/ops.md is what the op table says.
if(TARGET op_reference)
  add_test(NAME docs.ops COMMAND ${BASH} -c "diff -u docs/ops.md <('$<TARGET_FILE:op_reference>') || { echo 'call ./run docs'; exit 1; }"
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(docs.ops PROPERTIES LABELS "docs;static")
endif()
