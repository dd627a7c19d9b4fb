# Write OUT, a header with one hash of all SOURCES (a ;-list) and the text MORE, as the string NAME.
# cmake -DOUT= -DNAME= -DSOURCES= [-DMORE=] -P hash_sources.cmake
set(all "${MORE}")
foreach(source IN LISTS SOURCES)
  file(SHA256 ${source} hash)
  string(APPEND all ${hash})
endforeach()
string(SHA256 hash "${all}")
file(WRITE ${OUT} "#pragma once\ninline constexpr char ${NAME}[] = \"${hash}\";\n")
