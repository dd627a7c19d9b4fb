# Templates of the installed headers call these: all they declare is exported.
set_source_files_properties(${room_dir}/error.cpp ${room_dir}/text.cpp PROPERTIES COMPILE_OPTIONS -fvisibility=default)
