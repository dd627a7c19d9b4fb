# Templates of the installed headers call these: all they declare is exported.
set_source_files_properties(${room_dir}/attrs.cpp ${room_dir}/scalar.cpp PROPERTIES COMPILE_OPTIONS -fvisibility=default)
